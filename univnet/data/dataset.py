"""Random segments to train on and whole utterances to validate on, read from disk when they are asked for."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from univnet.audio import LogMelSpectrogram, read_segment
from univnet.data.manifest import AudioFile

Short = Literal["pad", "skip"]
_FRAMES_OFF = 2  # a mel made by other software may be this many frames longer or shorter than ours


class SegmentDataset(Dataset[dict[str, Tensor]]):
    """Random segments of recordings, one a file and epoch, each with the neighbourhood that its mel needs.

    Item `i` is draw number i: `epoch, index = divmod(i, len(dataset))` reads file `index` at a place drawn from
    `np.random.default_rng([seed, epoch, index])`. So a draw is the same in every worker, on every rank and after
    resuming, and each epoch brings other places.

    A segment begins on a frame. Beyond its two ends an item carries `mel.context` samples of the recording, or of
    the reflection at the recording's ends, so `mel.frames_of(context)` gives the very frames of the whole
    recording's mel, and the segment itself is the middle: `context[:, left : left + segment_length]`.

    Items: `{"context": (1, left + segment_length + right)}`, and if the files name mels
    `"mel": (n_mels, segment_length / hop_length)`.

    Args:
        files: checked files (`check_files`), all with a mel or all without.
        mel: the mel spectrogram in use: gives sample rate, hop length and context.
        segment_length: in samples at `mel.sample_rate`; a multiple of `mel.hop_length`.
        short: what becomes of recordings shorter than a segment: "pad" extends them with zeros, "skip" leaves
            them out with one warning.
        seed: another seed, other places.

    Raises:
        ValueError: names every argument that does not fit; or no file is left; on reading, a mel that does not
            fit its audio.
    """

    def __init__(
        self,
        files: Sequence[AudioFile],
        mel: LogMelSpectrogram,
        segment_length: int = 16384,
        short: Short = "pad",
        seed: int = 1234,
    ) -> None:
        mistakes = []
        if segment_length <= 0 or segment_length % mel.hop_length:
            mistakes.append(f"segment_length must be a multiple of hop_length={mel.hop_length}, got {segment_length}")
        if short not in ("pad", "skip"):
            mistakes.append(f"short must be 'pad' or 'skip', got {short!r}")
        mistakes += _mel_mistakes(files, _Grid.of(mel))
        if mistakes:
            raise ValueError("SegmentDataset: " + "; ".join(mistakes) + ".")
        fits = [file for file in files if file.length(mel.sample_rate) >= segment_length]
        self.files = list(files) if short == "pad" else fits
        if not self.files:
            raise ValueError(
                f"None of the {len(files)} files to train on is as long as a segment of {segment_length} samples at "
                f"{mel.sample_rate} Hz: use short='pad', a smaller segment_length, or more files."
            )
        if len(self.files) < len(files):
            warnings.warn(
                f"{len(files) - len(self.files)} of {len(files)} files are shorter than a segment of "
                f"{segment_length} samples and are left out (short='skip').",
                stacklevel=2,
            )
        self.mel = _Grid.of(mel)
        self.segment_length = segment_length
        self.seed = seed

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, draw: int) -> dict[str, Tensor]:
        epoch, index = divmod(draw, len(self.files))
        file, grid = self.files[index], self.mel
        rng = np.random.default_rng([self.seed, epoch, index])
        samples = file.length(grid.sample_rate)
        frames, wanted = samples // grid.hop_length, self.segment_length // grid.hop_length
        if file.mel is None:
            return {"context": self._context(file, samples, int(rng.integers(max(frames - wanted, 0) + 1)))}
        given = _load_mel(file, file.mel, grid, frames)[:, :frames]
        frames = given.shape[1]
        first = int(rng.integers(max(frames - wanted, 0) + 1))
        piece = torch.from_numpy(np.array(given[:, first : first + wanted], dtype=np.float32))
        piece = F.pad(piece, (0, wanted - piece.shape[1]), value=grid.silence)
        if frames < wanted:  # the sound ends with its mel
            samples = min(samples, frames * grid.hop_length)
        return {"context": self._context(file, samples, first), "mel": piece}

    def _context(self, file: AudioFile, samples: int, first_frame: int) -> Tensor:
        """The segment from a frame on with its neighbourhood, reflected where the whole recording's mel reflects."""
        left, right = self.mel.context
        length = max(samples, self.segment_length, max(left, right) + 1)  # with the zeros that the mel appends
        start = first_frame * self.mel.hop_length
        places = np.abs(np.arange(start - left, start + self.segment_length + right))
        places = np.minimum(places, 2 * (length - 1) - places)
        low, high = int(places.min()), int(places.max()) + 1
        audio = read_segment(file.path, low, max(0, min(high, samples) - low), self.mel.sample_rate)
        audio = F.pad(audio, (0, high - low - audio.shape[1]))
        return audio[:, torch.from_numpy(places - low)]


class UtteranceDataset(Dataset[dict[str, Any]]):
    """Whole recordings, cut to whole frames.

    Items: `{"audio": (1, frames · hop_length), "name": str}`, and if the files name mels
    `"mel": (n_mels, frames)`. A recording shorter than `least` is extended with zeros to it.

    Args:
        files: checked files (`check_files`), all with a mel or all without.
        mel: the mel spectrogram in use: gives sample rate and hop length.
        max_seconds: longer recordings are cut there; default: none is.
        least: in samples at `mel.sample_rate`, but no more than `max_seconds`; always at least a frame.

    Raises:
        ValueError: only some files have a mel; on reading, a mel that does not fit its audio.
    """

    def __init__(
        self, files: Sequence[AudioFile], mel: LogMelSpectrogram, max_seconds: float | None = None, least: int = 1
    ) -> None:
        if mistakes := _mel_mistakes(files, _Grid.of(mel)):
            raise ValueError("UtteranceDataset: " + "; ".join(mistakes) + ".")
        self.files = list(files)
        self.mel = _Grid.of(mel)
        self.max_seconds = max_seconds
        if max_seconds is not None:
            least = min(least, int(max_seconds * mel.sample_rate))
        self.least = least // mel.hop_length  # frames

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        file, grid = self.files[index], self.mel
        samples = file.length(grid.sample_rate)
        frames = max(1, samples // grid.hop_length)
        item: dict[str, Any] = {"name": file.name}
        given = None if file.mel is None else _load_mel(file, file.mel, grid, samples // grid.hop_length)
        if given is not None:
            frames = min(frames, given.shape[1])
        if self.max_seconds is not None:
            frames = max(1, min(frames, int(self.max_seconds * grid.sample_rate) // grid.hop_length))
        if given is not None:
            mel = torch.from_numpy(np.array(given[:, :frames], dtype=np.float32))
            item["mel"] = F.pad(mel, (0, max(0, self.least - frames)), value=grid.silence)
        samples, length = min(samples, frames * grid.hop_length), max(frames, self.least) * grid.hop_length
        audio = read_segment(file.path, 0, samples, grid.sample_rate)
        return {"audio": F.pad(audio, (0, length - audio.shape[1])), **item}


@dataclass(frozen=True)
class _Grid:
    """What reading needs to know of the mel, without the module: it travels to the workers."""

    sample_rate: int
    hop_length: int
    n_mels: int
    context: tuple[int, int]
    silence: float  # the log-mel of no sound

    @classmethod
    def of(cls, mel: LogMelSpectrogram) -> "_Grid":
        return cls(mel.sample_rate, mel.hop_length, mel.n_mels, mel.context, float(np.log(mel.floor)))


def _mel_mistakes(files: Sequence[AudioFile], grid: _Grid) -> list[str]:
    """What is wrong with the mels that the files name, by the headers of the mels."""
    without = [file for file in files if file.mel is None]
    if len(without) == len(files):
        return []
    if without:
        return [f"{len(without)} of {len(files)} files name no mel while the others do, for example {without[0].name}"]
    wrong = []
    for file in files:
        assert file.mel is not None
        try:
            _load_mel(file, file.mel, grid, file.length(grid.sample_rate) // grid.hop_length)
        except ValueError as error:
            wrong.append(str(error).rstrip("."))
    return [f"{len(wrong)} of {len(files)} mels do not fit, for example: {wrong[0]}"] if wrong else []


def _load_mel(file: AudioFile, path: Path, grid: _Grid, frames: int) -> np.ndarray:
    try:
        mel = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"The mel {path} is not a readable .npy file of numbers: {error}") from error
    if mel.ndim != 2 or mel.shape[0] != grid.n_mels or abs(mel.shape[1] - frames) > _FRAMES_OFF:
        raise ValueError(
            f"The mel {path} has the shape {mel.shape}, but {file.path} needs ({grid.n_mels}, {frames}) at "
            f"{grid.sample_rate} Hz with a hop of {grid.hop_length}: make it with the mel in use."
        )
    return mel
