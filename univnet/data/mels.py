"""Log-mels that a manifest gives in place of computed ones: reading them, and whether they can be meant."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from univnet.audio import LogMelSpectrogram, shown
from univnet.data.manifest import AudioFile

_FRAMES_OFF = 2  # a mel made by other software may be this many frames longer or shorter than ours
_MAGIC = b"\x93NUMPY"
_TENFOLD = float(np.log(10.0))  # how far a predicted mel may err beyond what audio in [−1, 1] can have


@dataclass(frozen=True)
class Grid:
    """What reading needs to know of the mel in use, without the module: it travels to the workers."""

    sample_rate: int
    hop_length: int
    n_mels: int
    context: tuple[int, int]
    silence: float  # the log-mel of no sound
    loudest: float  # above any log-mel of audio in [−1, 1]

    @classmethod
    def of(cls, mel: LogMelSpectrogram) -> "Grid":
        """Take it from the module."""
        largest = float(mel.filters.double().sum(1).max()) * mel.win_length / 2  # every bin at the window's sum
        bounds = float(np.log(mel.floor)), float(np.log(largest))
        return cls(mel.sample_rate, mel.hop_length, mel.n_mels, mel.context, *bounds)

    def frames(self, file: AudioFile) -> int:
        """Number of whole frames in a recording."""
        return file.length(self.sample_rate) // self.hop_length


def load_mel(file: AudioFile, path: Path, grid: Grid) -> np.ndarray:
    """The mel of a recording, mapped from its file: nothing is executed, and no value is read yet.

    Raises:
        ValueError: it is no ``.npy`` file of floating-point numbers, or its shape does not fit the recording.
    """
    try:
        with path.open("rb") as start:
            if start.read(len(_MAGIC)) != _MAGIC:  # also NPZ and pickles, which numpy would open
                raise ValueError("it does not begin as one")
        mel = np.load(path, mmap_mode="r", allow_pickle=False)
        if mel.dtype.kind != "f":
            raise ValueError(f"its type is {str(mel.dtype)[:40]}")
    except Exception as error:  # a damaged header is Python source to numpy, which may fail in any way
        why = " ".join(str(error).split())[:200]
        raise ValueError(f"The mel {shown(path)} is not a readable .npy file of floats: {why}") from error
    frames = grid.frames(file)
    if mel.ndim != 2 or mel.shape[0] != grid.n_mels or abs(mel.shape[1] - frames) > _FRAMES_OFF:
        turned = mel.ndim == 2 and mel.shape[1] == grid.n_mels and abs(mel.shape[0] - frames) <= _FRAMES_OFF
        raise ValueError(
            f"The mel {shown(path)} has the shape {mel.shape}, but {shown(file.path)} needs ({grid.n_mels}, {frames}) "
            f"at {grid.sample_rate} Hz with a hop of {grid.hop_length}: "
            f"{'transpose it' if turned else 'make it with the mel in use'}."
        )
    return mel


def fault_of_values(mel: np.ndarray, grid: Grid) -> str | None:
    """What is wrong with the values of a mel, if anything: how files with it are described."""
    for low in range(0, len(mel), 8):  # some bands at a time: a long recording's are not held at once
        with np.errstate(over="ignore", invalid="ignore"):
            some = np.asarray(mel[low : low + 8]).astype(np.float32)
        if not np.isfinite(some).all():
            return "with a mel that is not finite"
        if some.size and (some.min() < grid.silence - _TENFOLD or some.max() > grid.loudest + _TENFOLD):
            return "with a mel of values that no natural-log mel can have"
    return None
