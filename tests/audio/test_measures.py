import librosa
import numpy as np
import pytest
import soxr
import torch

from univnet.audio.measures import bandwidth, loudness


def test_loudness_is_that_of_the_standard():
    """EBU Tech 3341: a stereo sine of 1 kHz at −23 dBFS has −23 LUFS; of one channel, 3 dB less."""
    sine = 10 ** (-23 / 20) * np.sin(np.arange(48000 * 5) * 2 * np.pi * 1000 / 48000)
    assert loudness(torch.from_numpy(sine).float()[None], 48000) == pytest.approx(-26.0, abs=0.1)
    assert loudness(torch.zeros(1, 48000), 48000) is None
    assert loudness(torch.randn(1, 1000), 48000) is None


@pytest.mark.parametrize("edge", [3000, 6000, 9000])
def test_bandwidth_of_noise_below_an_edge(edge):
    spectrum = np.fft.rfft(np.random.default_rng(0).normal(size=72000))
    spectrum[int(edge / 24000 * 72000) :] = 0
    audio = torch.from_numpy(np.fft.irfft(spectrum)).float()[None]
    assert bandwidth(audio, 24000) == pytest.approx(edge, abs=500)


def test_upsampled_speech_is_told_from_speech(demo, speech):
    own = bandwidth(torch.from_numpy(speech)[None], 16000)
    for kind in ("VHQ", "HQ", "MQ"):
        up = torch.from_numpy(soxr.resample(speech, 16000, 24000, quality=kind))[None]
        assert bandwidth(up, 24000) == pytest.approx(own, abs=500)
    down = librosa.resample(librosa.resample(speech, orig_sr=16000, target_sr=8000), orig_sr=8000, target_sr=16000)
    assert bandwidth(torch.from_numpy(down)[None], 16000) < 4600 < own
    assert bandwidth(torch.zeros(1, 10), 16000) >= 0
