"""Random segments to train on and whole utterances to validate on, read from disk when they are asked for."""

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from univnet.audio import LogMelSpectrogram, ReadSegment, read_segment, shown
from univnet.data.augment import Augment
from univnet.data.check import FAR
from univnet.data.crops import EPOCHS, Crop, Crops, Epoch
from univnet.data.faults import Fault, first_that_reads
from univnet.data.manifest import AudioFile
from univnet.data.mels import Grid, fault_of_values, load_mel

Short = Literal["pad", "skip"]
_PLACES = 10  # tried for one that is not silent


class SegmentDataset(Dataset[dict[str, Any]]):
    """Random segments of recordings, each with the neighbourhood that its mel needs.

    Item ``i`` is draw number i: ``epoch, item = divmod(i, len(dataset))``. Which part of which recording it is depends
    on the draw number and the arguments alone (``Crops``), so a draw is the same in every worker, on every rank and
    after resuming, and each epoch brings other places.

    A segment begins on a frame. Beyond its two ends an item carries ``mel.context`` samples of the recording, or of
    the reflection at the recording's ends, so ``mel.frames_of(context)`` gives the very frames of the whole
    recording's mel, and the segment itself is the middle: ``context[:, left : left + segment_length]``.

    Items: ``{"context": (1, left + segment_length + right)}``, and if the files name mels
    ``"mel": (n_mels, segment_length / hop_length)``; after failed attempts, ``"faults"``: a list of (path, why).

    Args:
        files: checked files (``check_files``), all with a mel or all without.
        mel: the mel spectrogram in use: gives sample rate, hop length and context.
        segment_length: in samples at ``mel.sample_rate``; a multiple of ``mel.hop_length``.
        short: what becomes of recordings shorter than a segment: "pad" extends them with zeros, "skip" leaves
            them out with one warning.
        seed: another seed, other places.
        epoch: what an epoch counts: "seconds" (a recording of n segments n times), "files" (each once), "speakers"
            (as long as "seconds", but each speaker as often as any other).
        skip_silence: a segment that stays below so many dB of full scale is drawn at another place of its recording,
            up to ten times; None: never.
        augment: changes level, polarity or speed from draw to draw; None: nothing.
        tries: 1 raises what is wrong with a recording that cannot be read. More: so many crops are tried, each drawn
            elsewhere by the seed, the draw number and the attempt, before ``FaultyDataError`` is raised.
        read: what reads the recordings: ``read_segment``, or ``read`` of a ``FolderCache`` or ``MemoryCache``.

    Raises:
        ValueError: names every argument that does not fit; or no file is left; on reading, with one try, what is
            wrong with the recording or its mel.
    """

    def __init__(
        self,
        files: Sequence[AudioFile],
        mel: LogMelSpectrogram,
        segment_length: int = 16384,
        short: Short = "pad",
        seed: int = 1234,
        epoch: Epoch = "files",
        skip_silence: float | None = None,
        augment: Augment | None = None,
        tries: int = 1,
        read: ReadSegment = read_segment,
    ) -> None:
        grid = Grid.of(mel)
        mistakes = []
        if segment_length <= 0 or segment_length % mel.hop_length:
            mistakes.append(f"segment_length must be a multiple of hop_length={mel.hop_length}, got {segment_length}")
        if short not in ("pad", "skip"):
            mistakes.append(f"short must be 'pad' or 'skip', got {short!r}")
        if epoch not in EPOCHS:
            mistakes.append(f"epoch must be one of {', '.join(EPOCHS)}, got {epoch!r}")
        nameless = [file for file in files if file.speaker is None]
        if epoch == "speakers" and nameless:
            mistakes.append(
                f"epoch='speakers' needs a speaker for each file, but {len(nameless)} of {len(files)} have none, for "
                f"example {nameless[0].name}"
            )
        mistakes += _mel_mistakes(files, grid)
        if augment and not augment.keeps_mels and any(file.mel for file in files):
            mistakes.append("given mels would not fit audio whose gain or speed augment changes: leave these two out")
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
        self.mel = grid
        self.segment_length = segment_length
        self.seed = seed
        self.tries = tries
        self.read = read
        self.augment = augment
        self.silent_below = 0.0 if skip_silence is None else 10 ** (skip_silence / 20)
        frames = [grid.frames(file) for file in self.files]
        self.crops = Crops(self.files, frames, segment_length // grid.hop_length, epoch, seed)

    def __len__(self) -> int:
        return len(self.crops)

    def __getitem__(self, draw: int) -> dict[str, Any]:
        return first_that_reads(lambda attempt: self._sounding(self.crops.of(draw, attempt)), self.tries)

    def _sounding(self, crop: Crop) -> dict[str, Tensor]:
        """What is at the crop, or at the first other place in its recording that is not silent."""
        item = self._read(crop)
        left = self.mel.context[0]
        for place in range(1, _PLACES + 1 if self.silent_below else 1):
            segment = item["context"][:, left : left + self.segment_length]
            if segment.abs().max() >= self.silent_below:
                break
            item = self._read(crop.again(place))
        if self.augment:
            item["context"] = self.augment.levelled(item["context"], crop)
        return item

    def _read(self, crop: Crop) -> dict[str, Tensor]:
        file, grid = self.files[crop.file], self.mel
        if self.augment:
            file = self.augment.sped(file, crop)
        samples = file.length(grid.sample_rate)
        frames, wanted = samples // grid.hop_length, self.segment_length // grid.hop_length
        if file.mel is None:
            return {"context": self._context(file, samples, crop.first(max(frames - wanted, 0) + 1))}
        given = _given_mel(file, grid)[:, :frames]
        frames = given.shape[1]
        first = crop.first(max(frames - wanted, 0) + 1)
        piece = _checked_mel(file, given[:, first : first + wanted], grid)
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
        audio = _read_audio(file, low, max(0, min(high, samples) - low), self.mel.sample_rate, self.read)
        audio = F.pad(audio, (0, high - low - audio.shape[1]))
        return audio[:, torch.from_numpy(places - low)]


class UtteranceDataset(Dataset[dict[str, Any]]):
    """Whole recordings, cut to whole frames.

    Items: ``{"audio": (1, frames · hop_length), "name": str}``, and if the files name mels
    ``"mel": (n_mels, frames)``. A recording shorter than ``least`` is extended with zeros to it.

    Args:
        files: checked files (``check_files``), all with a mel or all without.
        mel: the mel spectrogram in use: gives sample rate and hop length.
        max_seconds: longer recordings are cut there; default: none is.
        least: in samples at ``mel.sample_rate``, but no more than ``max_seconds``; always at least a frame.
        tries: above 1, the place of a recording that cannot be read is taken by the next that can, within so many; the
            item then has ``"faults"``, as in ``SegmentDataset``.
        read: what reads the recordings, as in ``SegmentDataset``.

    Raises:
        ValueError: only some files have a mel; on reading, with one try, what is wrong with a recording or its mel.
    """

    def __init__(
        self,
        files: Sequence[AudioFile],
        mel: LogMelSpectrogram,
        max_seconds: float | None = None,
        least: int = 1,
        tries: int = 1,
        read: ReadSegment = read_segment,
    ) -> None:
        if mistakes := _mel_mistakes(files, Grid.of(mel)):
            raise ValueError("UtteranceDataset: " + "; ".join(mistakes) + ".")
        self.files = list(files)
        self.mel = Grid.of(mel)
        self.tries = tries
        self.read = read
        self.max_seconds = max_seconds
        if max_seconds is not None:
            least = min(least, int(max_seconds * mel.sample_rate))
        self.least = least // mel.hop_length  # frames

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return first_that_reads(lambda attempt: self._read(self._file(index, attempt)), self.tries)

    def _file(self, index: int, attempt: int) -> AudioFile:
        return self.files[(index + attempt) % len(self)] if attempt else self.files[index]

    def _read(self, file: AudioFile) -> dict[str, Any]:
        grid = self.mel
        samples = file.length(grid.sample_rate)
        frames = max(1, samples // grid.hop_length)
        item: dict[str, Any] = {"name": file.name}
        given = None if file.mel is None else _given_mel(file, grid)
        if given is not None:
            frames = min(frames, given.shape[1])
        if self.max_seconds is not None:
            frames = max(1, min(frames, int(self.max_seconds * grid.sample_rate) // grid.hop_length))
        if given is not None:
            mel = _checked_mel(file, given[:, :frames], grid)
            item["mel"] = F.pad(mel, (0, max(0, self.least - frames)), value=grid.silence)
        samples, length = min(samples, frames * grid.hop_length), max(frames, self.least) * grid.hop_length
        audio = _read_audio(file, 0, samples, grid.sample_rate, self.read)
        return {"audio": F.pad(audio, (0, length - audio.shape[1])), **item}


def _mel_mistakes(files: Sequence[AudioFile], grid: Grid) -> list[str]:
    """What is wrong with the mels that the files name, by the headers of the mels."""
    without = [file for file in files if file.mel is None]
    if len(without) == len(files):
        return []
    if without:
        return [f"{len(without)} of {len(files)} files name no mel while the others do, for example {without[0].name}"]
    wrong = []
    for file in files:
        try:
            _given_mel(file, grid)
        except Fault as fault:
            wrong.append(fault.why.rstrip("."))
    return [f"{len(wrong)} of {len(files)} mels do not fit, for example: {wrong[0]}"] if wrong else []


def _read_audio(file: AudioFile, start: int, length: int, sample_rate: int, read: ReadSegment) -> Tensor:
    try:
        audio = file.read(start, length, sample_rate, read)
    except (OSError, ValueError) as error:
        raise Fault(shown(file.path), str(error)) from error
    if not (audio.numel() == 0 or float(audio.abs().max()) <= FAR):  # false for NaN, too
        raise Fault(
            shown(file.path), f"{shown(file.path)} holds NaN, or samples of more than {FAR:g} times full scale."
        )
    return audio


def _given_mel(file: AudioFile, grid: Grid) -> np.ndarray:
    assert file.mel is not None
    try:
        return load_mel(file, file.mel, grid)
    except ValueError as error:
        raise Fault(shown(file.mel), str(error)) from error


def _checked_mel(file: AudioFile, values: np.ndarray, grid: Grid) -> Tensor:
    assert file.mel is not None
    with np.errstate(over="ignore"):
        mel = np.array(values, dtype=np.float32)
    if fault := fault_of_values(mel, grid):
        raise Fault(shown(file.mel), f"{shown(file.path)} is a recording {fault}, {shown(file.mel)}.")
    return torch.from_numpy(mel)
