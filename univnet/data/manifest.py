"""Which audio files there are: found, listed, checked, and split into training and validation."""

import csv
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile as sf

from univnet.audio import resampled_length

EXTENSIONS = (".wav", ".flac", ".ogg")
SILENT_PEAK = 1e-4  # −80 dB of full scale: below this a file is taken for silence
_BLOCK = 1 << 20  # frames decoded at a time
_STREAMED = 0x7FFF0000  # WAV writers that cannot seek back leave a size near 2³¹ or 2³² in the header

Check = Literal["full", "header"]


@dataclass(frozen=True)
class AudioFile:
    """One recording.

    Attributes:
        path: the audio file.
        name: its path relative to the folder or manifest it came from, with "/": what it is called in splits
            and in logs.
        speaker: who speaks, if known.
        mel: a `.npy` log-mel (n_mels, frames) that replaces the one computed from the audio, if given.
        samples: length at the file's own rate; 0 until `check_files` has read the header.
        sample_rate: the file's own rate in Hz; 0 until `check_files` has read the header.
    """

    path: Path
    name: str
    speaker: str | None = None
    mel: Path | None = None
    samples: int = 0
    sample_rate: int = 0

    @property
    def seconds(self) -> float:
        """Length in seconds; 0 until `check_files` has read the header."""
        return self.samples / self.sample_rate if self.sample_rate else 0.0

    def length(self, sample_rate: int) -> int:
        """Exact length in samples once read at `sample_rate`."""
        return resampled_length(self.samples, self.sample_rate, sample_rate)


def scan_folder(root: str | Path) -> list[AudioFile]:
    """Every WAV, FLAC and OGG file under a folder, sorted by name.

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: it holds no audio file.
    """
    root = Path(root)
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {root} to look for audio in: check data.root.")
    paths = (path for path in root.rglob("*") if path.suffix.lower() in EXTENSIONS and path.is_file())
    files = [AudioFile(path, path.relative_to(root).as_posix()) for path in paths]
    if not files:
        raise ValueError(
            f"The folder {root} holds no {', '.join(EXTENSIONS)} file at any depth: point data.root at recordings."
        )
    return sorted(files, key=lambda file: file.name)


def read_manifest(path: str | Path) -> list[AudioFile]:
    """The files that a table lists, in its order.

    The table is CSV, or tab-separated if its first line holds a tab, with a header. Column `path` is required;
    `speaker` and `mel` are optional, other columns are ignored. Paths are relative to the table's folder.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it has no column `path`, a row without one, or no row at all.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no manifest {path}: check its name.")
    with path.open(newline="", encoding="utf-8-sig") as table:
        tabs = "\t" in table.readline()
        table.seek(0)
        quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
        rows = csv.DictReader(table, delimiter="\t" if tabs else ",", quoting=quoting)
        columns = rows.fieldnames or []
        if "path" not in columns:
            raise ValueError(
                f"The manifest {path} has no column 'path'; its header names {', '.join(columns) or 'nothing'}."
            )
        files = [_listed_file(path, row, line) for line, row in enumerate(rows, start=2)]
    if not files:
        raise ValueError(f"The manifest {path} lists no file.")
    return files


def check_files(
    files: Sequence[AudioFile], check: Check = "full", workers: int | None = None
) -> tuple[list[AudioFile], dict[str, list[AudioFile]]]:
    """Leave out the files that cannot be trained on, with one warning that counts them.

    Left out are files that are missing, unreadable, truncated (fewer samples than the header says), empty,
    silent (peak below 1e-4), hold NaN or infinity, or lack the mel file that they name.

    Args:
        files: from `scan_folder` or `read_manifest`.
        check: "full" decodes every file; "header" only opens it, and so finds neither silence, nor NaN, nor
            a truncated FLAC.
        workers: threads; default: one a processor, at most 16.

    Returns:
        The good files in their order, now with `samples` and `sample_rate`, and the others by reason.

    Raises:
        ValueError: no file is left.
    """
    with ThreadPoolExecutor(workers or min(16, os.cpu_count() or 1)) as pool:
        checked = list(pool.map(lambda file: _check_file(file, check), files))
    kept = [result for result in checked if isinstance(result, AudioFile)]
    dropped: dict[str, list[AudioFile]] = {}
    for file, result in zip(files, checked, strict=True):
        if isinstance(result, str):
            dropped.setdefault(result, []).append(file)
    if dropped:
        reasons = "; ".join(f"{len(bad)} {reason}, for example {bad[0].path}" for reason, bad in dropped.items())
        if not kept:
            raise ValueError(f"None of the {len(files)} audio files can be used: {reasons}. Mend or replace them.")
        warnings.warn(f"{len(files) - len(kept)} of {len(files)} audio files are left out: {reasons}.", stacklevel=2)
    return kept, dropped


def split_files(
    files: Sequence[AudioFile], validation: int | float, seed: int = 1234
) -> tuple[list[AudioFile], list[AudioFile]]:
    """Divide files into training and validation, each file by its own name.

    Args:
        files: all files.
        validation: a float below 1 is the probability with which a file goes to validation: whether it does
            hangs on its name and the seed alone, so files that come or go move no other. An int is the number
            of validation files. Above 0, at least one file is chosen.
        seed: another seed, another split.

    Returns:
        (training, validation), both in the files' order.

    Raises:
        ValueError: `validation` is out of range, or leaves nothing to train on.
    """
    if validation < 0 or (isinstance(validation, float) and validation >= 1):
        raise ValueError(f"validation must be a share in [0, 1) or a number of files, got {validation!r}.")
    ranks = {file.name: _uniform(f"{seed}:{file.name}") for file in files}
    ordered = sorted(ranks, key=lambda name: ranks[name])
    count = sum(rank < validation for rank in ranks.values()) if isinstance(validation, float) else int(validation)
    chosen = set(ordered[: max(count, 1) if validation else 0])
    training = [file for file in files if file.name not in chosen]
    if not training:
        raise ValueError(f"validation={validation} leaves none of the {len(files)} files to train on: lower it.")
    return training, [file for file in files if file.name in chosen]


def warn_of_resampling(files: Iterable[AudioFile], sample_rate: int) -> None:
    """Say once how many files are resampled to `sample_rate` at every reading, and from which rates."""
    rates = Counter(file.sample_rate for file in files if file.sample_rate != sample_rate)
    if rates:
        listed = ", ".join(f"{count} from {rate} Hz" for rate, count in sorted(rates.items()))
        warnings.warn(
            f"{rates.total()} audio files are resampled to {sample_rate} Hz at every reading ({listed}): "
            "prepare them once for speed. Upsampled files have no sound above half their own rate.",
            stacklevel=2,
        )


def _listed_file(manifest: Path, row: dict[str, str | None], line: int) -> AudioFile:
    name, speaker, mel = (row.get(column) or None for column in ("path", "speaker", "mel"))
    if name is None:
        raise ValueError(f"The manifest {manifest} has no path in row {line}.")
    return AudioFile(manifest.parent / name, name, speaker, manifest.parent / mel if mel else None)


def _check_file(file: AudioFile, check: Check) -> AudioFile | str:
    """The file with its length and rate, or the reason against it."""
    if not file.path.is_file():
        return "missing"
    if file.mel is not None and not file.mel.is_file():
        return "without their mel file"
    peak, read, frames = 0.0, 0, -1
    try:
        with sf.SoundFile(file.path) as audio:
            frames, rate = audio.frames, audio.samplerate
            if _wav_cut_short(audio):
                return "truncated"
            while check == "full" and len(block := audio.read(_BLOCK, dtype="float32")):
                read += len(block)
                peak = max(peak, float(np.abs(block).max())) if np.isfinite(block).all() else np.inf
    except (sf.LibsndfileError, OSError):
        return "unreadable" if frames < 0 else "truncated"
    if frames == 0:
        return "empty"
    if check == "full":
        if read < frames:
            return "truncated"
        if peak == np.inf:
            return "with NaN or infinity"
        if peak < SILENT_PEAK:
            return "silent"
    return replace(file, samples=frames, sample_rate=rate)


def _wav_cut_short(audio: sf.SoundFile) -> bool:
    """Whether a WAV promises more than it holds; libsndfile corrects the length and only tells its log."""
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", audio.extra_info, re.MULTILINE)
    return sizes is not None and int(sizes[2]) < int(sizes[1]) < _STREAMED


def _uniform(text: str) -> float:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64
