"""Log-mels that a manifest gives in place of computed ones: reading them, and whether they can be meant."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from univnet.audio import LogMelSpectrogram, MelFormat, shown
from univnet.audio.formats import doubt, likely_format
from univnet.data.manifest import AudioFile

_FRAMES_OFF = 2  # a mel made by other software may be this many frames longer or shorter than ours
_MAGIC = b"\x93NUMPY"
_TENFOLD = float(np.log(10.0))  # how far a predicted mel may err beyond what audio in [−1, 1] can have
_SAMPLE = 100  # mels whose statistics are looked at: how they were made is the same for all
_PIECE = 4096  # frames looked at at a time


@dataclass(frozen=True)
class Grid:
    """What reading needs to know of the mel in use, without the module: it travels to the workers."""

    sample_rate: int
    hop_length: int
    n_mels: int
    context: tuple[int, int]
    silence: float  # the log-mel of no sound
    loudest: float  # above any log-mel of audio in [−1, 1]
    form: MelFormat | None = None  # of the given mels; None: as ours

    @classmethod
    def of(cls, mel: LogMelSpectrogram, form: MelFormat | None = None) -> "Grid":
        """Take it from the module, and the format of the given mels, which must be one that converts exactly."""
        largest = float(mel.filters.double().sum(1).max()) * mel.win_length / 2  # every bin at the window's sum
        bounds = float(np.log(mel.floor)), float(np.log(largest))
        return cls(mel.sample_rate, mel.hop_length, mel.n_mels, mel.context, *bounds, form)

    @property
    def delay(self) -> int:
        """How many samples late the audio of a given mel's frames comes."""
        return self.form.delay() if self.form else 0

    def frames(self, file: AudioFile) -> int:
        """Number of whole frames in a recording."""
        return file.length(self.sample_rate) // self.hop_length

    def converted(self, values: np.ndarray) -> np.ndarray:
        """Given values, float32, as the log-mels of the mel in use."""
        if self.form is None:
            return values
        return self.form.natural_logs(torch.from_numpy(values), self.silence).numpy()


def load_mel(file: AudioFile, path: Path, grid: Grid) -> np.ndarray:
    """The mel of a recording as it was given, (n_mels, frames): mapped from its file, no value is read yet.

    Nothing in the file is executed. ``read_values`` makes our log-mels of it.

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
    frames, first = grid.frames(file), grid.form is not None and grid.form.frames_first
    turned = mel.T if first and mel.ndim == 2 else mel
    if not _fits(turned, grid, frames):
        needed = f"({frames}, {grid.n_mels})" if first else f"({grid.n_mels}, {frames})"
        raise ValueError(
            f"The mel {shown(path)} has the shape {mel.shape}, but {shown(file.path)} needs {needed} "
            f"at {grid.sample_rate} Hz with a hop of {grid.hop_length}: "
            f"{'transpose it' if _fits(turned.T, grid, frames) else 'make it with the mel in use'}."
        )
    return turned


def _fits(mel: np.ndarray, grid: Grid, frames: int) -> bool:
    return mel.ndim == 2 and mel.shape[0] == grid.n_mels and abs(mel.shape[1] - frames) <= _FRAMES_OFF


def read_values(mel: np.ndarray, grid: Grid) -> tuple[np.ndarray, str | None]:
    """Given values as our log-mels, float32, and what is wrong with them, if anything: how files are described."""
    with np.errstate(over="ignore", invalid="ignore"):
        given = np.array(mel, dtype=np.float32)
    if not np.isfinite(given).all():
        return given, "with a mel that is not finite"
    values = grid.converted(given)
    if values.size and (values.min() < grid.silence - _TENFOLD or values.max() > grid.loudest + _TENFOLD):
        likely = likely_format(torch.from_numpy(values), math.exp(grid.silence))
        like = f" (they look like {likely})" if likely else ""
        if grid.form is None:
            return values, f"with a mel of values that no natural-log mel can have{like}"
        return values, f"with a mel of values that no mel of the format {grid.form.name} can have{like}"
    return values, None


def fault_of_values(mel: np.ndarray, grid: Grid) -> str | None:
    """What is wrong with the values of a whole mel, if anything: how files with it are described."""
    for first in range(0, mel.shape[1], _PIECE):  # a long recording's are not held at once
        if fault := read_values(mel[:, first : first + _PIECE], grid)[1]:
            return fault
    return None


def refuse_doubtful(files: Sequence[AudioFile], grid: Grid) -> None:
    """Refuse a set of mels most of which have statistics that natural-log magnitudes cannot have.

    A single mel of a strange recording is no reason; a format is one of all mels.

    Raises:
        ValueError: names one of them, and the format that it looks like.
    """
    given = [file for file in files if file.mel is not None]
    doubtful: list[tuple[AudioFile, str]] = []
    looked_at = given[:: math.ceil(len(given) / _SAMPLE) or 1]
    for file in looked_at:
        assert file.mel is not None
        try:
            mel = load_mel(file, file.mel, grid)
        except ValueError:
            continue  # told where the data set is made
        values, _ = read_values(mel[:, :: math.ceil(mel.shape[1] / _PIECE) or 1], grid)
        if (
            np.isfinite(values).all()
            and values.size
            and (why := doubt(torch.from_numpy(values), math.exp(grid.silence)))
        ):
            doubtful.append((file, why))
    if 2 * len(doubtful) <= len(looked_at):
        return
    file, why = doubtful[0]
    as_told = f"taken for {grid.form.name} and converted, " if grid.form else ""
    raise ValueError(
        f"{len(doubtful)} of {len(looked_at)} given mels cannot be meant, for example {file.mel and shown(file.mel)}: "
        f"{as_told}{why}. Say with data.mel_format how they were made (docs/weights.md)."
    )
