import copy
import itertools

import librosa
import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from univnet.audio import LogMelSpectrogram

CONFIGS = [
    {},
    {"sample_rate": 22050, "n_mels": 80, "f_max": 8000.0},
    {"sample_rate": 16000, "n_mels": 80},
    {"sample_rate": 16000, "n_mels": 80, "n_fft": 1024, "hop_length": 201, "win_length": 801, "f_min": 60.0},
]


def librosa_log_mel(audio: np.ndarray, mel: LogMelSpectrogram) -> tuple[np.ndarray, np.ndarray]:
    filters = librosa.filters.mel(
        sr=mel.sample_rate, n_fft=mel.n_fft, n_mels=mel.n_mels, fmin=mel.f_min, fmax=mel.f_max
    )
    left = (mel.n_fft - mel.hop_length) // 2
    padded = np.pad(audio, (left, mel.n_fft - mel.hop_length - left), mode="reflect")
    spectrum = librosa.stft(padded, n_fft=mel.n_fft, hop_length=mel.hop_length, win_length=mel.win_length, center=False)
    return filters, np.log(np.maximum(filters @ np.sqrt(np.abs(spectrum) ** 2 + 1e-9), mel.floor))


@pytest.mark.parametrize("config", CONFIGS)
def test_equals_librosa_on_speech(config, speech):
    mel = LogMelSpectrogram(**config)
    audio = librosa.resample(speech, orig_sr=16000, target_sr=mel.sample_rate)
    filters, expected = librosa_log_mel(audio, mel)
    exact = mel(torch.from_numpy(audio)[None, None].double())[0].numpy()
    ours = mel(torch.from_numpy(audio)[None, None])[0].numpy()
    assert ours.shape == expected.shape == (mel.n_mels, len(audio) // mel.hop_length)
    np.testing.assert_allclose(mel.filters.numpy(), filters, atol=1e-6)
    np.testing.assert_allclose(exact, expected, atol=1e-4, rtol=0)
    # librosa computes in float64; a float32 FFT is as near in magnitude, and in the logarithm but for near-silence
    np.testing.assert_allclose(np.exp(ours), np.exp(expected), atol=1e-5, rtol=0)
    assert (np.abs(ours - expected) < 1e-4).mean() > 0.98


@pytest.mark.parametrize(("n_fft", "hop"), [(64, 16), (64, 64), (64, 21), (64, 5)])
def test_every_length_gives_samples_over_hop_frames(n_fft, hop):
    mel = LogMelSpectrogram(16000, n_fft=n_fft, hop_length=hop, n_mels=4)
    for samples in [*range(hop, 3 * n_fft), 1000]:
        assert mel(torch.randn(2, 1, samples)).shape == (2, 4, samples // hop)


def test_short_audio_is_extended_with_zeros():
    mel = LogMelSpectrogram()
    audio = torch.randn(1, 1, 300)
    extended = torch.cat([audio, torch.zeros(1, 1, 85)], -1)  # the reflection needs 385 samples
    torch.testing.assert_close(mel(audio), mel(extended)[..., :1])


@pytest.mark.parametrize("config", CONFIGS)
def test_frames_with_their_context_are_those_of_the_whole(config, speech):
    mel = LogMelSpectrogram(**config)
    whole = mel(torch.from_numpy(speech)[None, None])
    left, right = mel.context
    for first, count in itertools.product((4, 50), (1, 7)):
        start, stop = first * mel.hop_length - left, (first + count) * mel.hop_length + right
        piece = mel.frames_of(torch.from_numpy(speech[start:stop])[None, None])
        torch.testing.assert_close(piece, whole[..., first : first + count], atol=1e-5, rtol=0)


def test_gradient_is_finite_on_silence_and_right_elsewhere():
    mel = LogMelSpectrogram(16000, n_fft=32, hop_length=8, n_mels=4)
    silence = torch.zeros(1, 1, 64, requires_grad=True)
    mel(silence).sum().backward()
    assert silence.grad.isfinite().all()
    noise = torch.randn(1, 1, 48, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(mel, noise)


def test_precision():
    mel, audio = LogMelSpectrogram(), torch.randn(1, 1, 4096)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(mel(audio), LogMelSpectrogram()(audio))
        assert mel(audio).dtype == torch.float32
    assert mel(audio.bfloat16()).dtype == torch.float32
    assert mel(audio.double()).dtype == torch.float64


def test_config_rebuilds_and_nothing_is_saved():
    mel = LogMelSpectrogram(22050, 2048, 300, 1200, 80, 30, 8000, 1e-4)
    again = LogMelSpectrogram(**mel.config)
    assert again.config == mel.config
    assert torch.equal(again.filters, mel.filters)
    assert mel.state_dict() == {}


def test_every_mistake_at_once():
    with pytest.raises(ValueError, match=r"hop_length.*win_length.*f_max.*floor"):
        LogMelSpectrogram(hop_length=2000, win_length=2000, f_max=13000, floor=0)
    for shape in [(4096,), (1, 4096), (1, 2, 4096)]:
        with pytest.raises(ValueError, match="shape"):
            LogMelSpectrogram()(torch.zeros(shape))
    with pytest.raises(ValueError, match="255 samples"):
        LogMelSpectrogram()(torch.zeros(1, 1, 255))


@pytest.mark.parametrize("inference", [False, True])
def test_other_devices_have_copies_of_the_filters(inference):
    mel = LogMelSpectrogram()
    with FakeTensorMode(allow_non_fake_inputs=True), torch.inference_mode(inference):
        audio = torch.zeros(1, 1, 2048, device="cuda")
        assert mel(audio).device.type == "cuda"
        copies = mel._filters_on(audio.device)
        assert mel._filters_on(audio.device) is copies
        assert not copies.is_inference()  # training could not use it later
    assert mel.filters.device.type == "cpu"
    assert not copy.deepcopy(mel)._elsewhere
    assert not mel.double()._elsewhere
    assert mel(torch.zeros(1, 1, 2048)).dtype == torch.float32
