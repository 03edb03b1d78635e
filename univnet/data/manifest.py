"""Which audio files a table lists, in whatever encoding, and how files are split into training and validation."""

import codecs
import csv
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from io import StringIO
from pathlib import Path
from typing import Literal

from torch import Tensor

from univnet.audio import ReadSegment, read_segment, resampled_length, shown

_LARGEST = 1 << 28  # bytes; a manifest of three million recordings
_MARKS = {  # UTF-32's begins with UTF-16's
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class AudioFile:
    """One recording.

    Attributes:
        path: the audio file.
        name: its path relative to the folder or manifest it came from, with "/": what it is called in splits
            and in logs. Bytes that are not UTF-8 are written as ``\\\\xe9``.
        speaker: who speaks, if known.
        mel: a ``.npy`` log-mel (n_mels, frames) that replaces the one computed from the audio, if given.
        samples: length at the file's own rate; 0 until ``check_files`` has read the header.
        sample_rate: the file's own rate in Hz; 0 until ``check_files`` has read the header.
        offset: a constant that ``check_files`` found in the recording, and that ``read`` takes out.
        gain: what ``check_files`` found that the recording must be multiplied by, and ``read`` does.
    """

    path: Path
    name: str
    speaker: str | None = None
    mel: Path | None = None
    samples: int = 0
    sample_rate: int = 0
    offset: float = 0.0
    gain: float = 1.0

    @property
    def seconds(self) -> float:
        """Length in seconds; 0 until ``check_files`` has read the header."""
        return self.samples / self.sample_rate if self.sample_rate else 0.0

    def length(self, sample_rate: int) -> int:
        """Exact length in samples once read at ``sample_rate``."""
        return resampled_length(self.samples, self.sample_rate, sample_rate)

    def read(self, start: int, length: int, sample_rate: int, read: ReadSegment = read_segment) -> Tensor:
        """Part of the recording, repaired (see ``read_segment``, or what takes its place)."""
        own_rate = self.sample_rate or None
        return read(self.path, start, length, sample_rate, self.offset, self.gain, own_rate)


def read_manifest(path: str | os.PathLike[str]) -> list[AudioFile]:
    """The files that a table lists, in its order.

    The table is CSV, or tab-separated if its first line holds a tab, with a header. Column ``path`` is required;
    ``speaker`` and ``mel`` are optional, other columns are ignored. Paths are relative to the table's folder. Rows that
    repeat another's recording and mel are left out, with a warning that counts them.

    It is read as UTF-8, or as its byte order mark says. A table that is neither is read in the encoding in which its
    paths lead to files: that of the files' own names, Windows-1252 (Latin-1), or UTF-16 without a mark.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it has no column ``path``, a row without one, no row at all, or no encoding that is certain; or it
            is no table.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no manifest {shown(path)}: check its name.")
    if path.stat().st_size > _LARGEST:
        raise ValueError(f"The manifest {shown(path)} has over {_LARGEST >> 20} MiB: that is no list of recordings.")
    files = _decoded(path, path.read_bytes())
    if not files:
        raise ValueError(f"The manifest {shown(path)} lists no file.")
    once = {tuple(map(os.path.normpath, (file.path, file.mel or ""))): file for file in reversed(files)}
    if len(once) < len(files):
        warnings.warn(f"{len(files) - len(once)} rows of {shown(path)} repeat others and are left out.", stacklevel=2)
    return list(reversed(once.values()))


def split_files(
    files: Sequence[AudioFile], validation: int | float, seed: int = 1234
) -> tuple[list[AudioFile], list[AudioFile]]:
    """Divide files into training and validation, each file by its own name.

    Args:
        files: all files.
        validation: a float below 1 is the probability with which a file goes to validation: whether it does
            depends on its name and the seed alone, so files that come or go move no other. An int is the number
            of validation files. Above 0, at least one file is chosen.
        seed: another seed, another split.

    Returns:
        (training, validation), both in the files' order.

    Raises:
        ValueError: ``validation`` is out of range, or leaves nothing to train on.
    """
    if validation < 0 or (isinstance(validation, float) and validation >= 1):
        raise ValueError(f"validation must be a share in [0, 1) or a number of files, got {validation!r}.")
    ranks = {file.name: uniform(f"{seed}:{file.name}") for file in files}
    ordered = sorted(ranks, key=lambda name: ranks[name])
    count = sum(rank < validation for rank in ranks.values()) if isinstance(validation, float) else int(validation)
    chosen = set(ordered[: max(count, 1) if validation else 0])
    training = [file for file in files if file.name not in chosen]
    if not training:
        raise ValueError(f"validation={validation} leaves none of the {len(files)} files to train on: lower it.")
    return training, [file for file in files if file.name in chosen]


def uniform(text: str) -> float:
    """A number in [0, 1) that depends on the text alone, as good as random."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest()) / 2**64


def _decoded(path: Path, data: bytes) -> list[AudioFile]:
    """The rows, in the encoding that is certain."""
    marked = next((encoding for mark, encoding in _MARKS.items() if data.startswith(mark)), None)
    if marked is not None or b"\0" not in data:
        try:
            return _rows(path, data.decode(marked or "utf-8"))
        except UnicodeDecodeError as error:
            line = 1 + data.count(b"\n", 0, error.start)
            where = f"line {line}" if marked in (None, "utf-8-sig") else f"nor the {marked} that it begins as"
    else:
        where = "there are zero bytes in it"
    if marked is None:
        for encoding, errors in _guesses(data):
            try:
                rows = _rows(path, data.decode(encoding, errors))
            except ValueError:  # UnicodeDecodeError is one, too
                continue
            if rows and all(os.path.isfile(row.path) for row in rows if not str(row.path).isascii()):
                return rows
    raise ValueError(
        f"The manifest {shown(path)} is not UTF-8 text ({where}), and its paths lead to files in no other encoding: "
        "save it as UTF-8, for example with `iconv -f latin1 -t utf-8`."
    )


def _guesses(data: bytes) -> Iterator[tuple[str, str]]:
    if b"\0" in data:
        yield from (("utf-16-le", "strict"), ("utf-16-be", "strict"))
    else:
        yield from (("utf-8", "surrogateescape"), ("cp1252", "strict"), ("latin-1", "strict"))


def _rows(path: Path, text: str) -> list[AudioFile]:
    tabs = "\t" in text[: text.find("\n") if "\n" in text else None]
    quoting: Literal[0, 3] = csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL
    rows = csv.DictReader(StringIO(text, newline=""), delimiter="\t" if tabs else ",", quoting=quoting)
    try:
        columns = rows.fieldnames or []
        if "path" not in columns:
            named = ", ".join(shown(column)[:40] for column in columns[:20]) or "nothing"
            raise ValueError(f"The manifest {shown(path)} has no column 'path'; its header names {named}.")
        return [_listed_file(path, row, line) for line, row in enumerate(rows, start=2)]
    except csv.Error as error:
        raise ValueError(
            f"The manifest {shown(path)} is no table that can be read (after line {rows.line_num}: {error})."
        ) from error


def _listed_file(manifest: Path, row: dict[str, str | None], line: int) -> AudioFile:
    name, speaker, mel = (row.get(column) or None for column in ("path", "speaker", "mel"))
    if name is None:
        raise ValueError(f"The manifest {shown(manifest)} has no path in row {line}.")
    speaker = shown(speaker) if speaker else None
    return AudioFile(manifest.parent / name, shown(name), speaker, manifest.parent / mel if mel else None)
