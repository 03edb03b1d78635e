"""The layouts of the corpora that vocoders are trained on: who speaks in which file, and which split it is of."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from univnet.audio import shown
from univnet.audio.io import RECORDINGS
from univnet.data.manifest import AudioFile
from univnet.data.scan import require_folder, scan_folder

Corpus = Literal["auto", "folder", "libritts", "ljspeech", "vctk"]
CORPORA = ("auto", "folder", "libritts", "ljspeech", "vctk")
_SPLITS = {"train": "train", "dev": "validation", "test": "test"}  # how the names of LibriTTS's sets begin

_OPTION = "SOURCE"  # what `univnet prepare` calls the folder


@dataclass(frozen=True)
class Source:
    """A recording of a corpus, with the split that the corpus itself puts it in, if it does."""

    file: AudioFile
    split: str | None = None


def find_sources(root: str | os.PathLike[str], corpus: Corpus = "auto") -> tuple[str, list[Source]]:
    """The recordings of a corpus as it is unpacked, or of any folder, and which layout it has.

    - ``libritts`` (also LibriTTS-R and LibriSpeech): ``SET/SPEAKER/CHAPTER/*.wav``, where the sets' names begin with
      train-, dev- and test-: those are the splits.
    - ``ljspeech``: ``metadata.csv`` and ``wavs/``: what the table lists, by one speaker, LJ.
    - ``vctk``: ``wav48_silence_trimmed/SPEAKER/*_mic1.flac`` (mic2 has the same speech), or ``wav48/SPEAKER/*.wav``.
    - ``folder``: any; speakers are not known.

    Args:
        root: the corpus's folder, or the one that it is unpacked in.
        corpus: "auto" finds out.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.
        ValueError: it has not the layout that was asked for, or holds no recording.
    """
    root = Path(root)
    require_folder(root, _OPTION)
    places = [root, *sorted(path for path in root.iterdir() if path.is_dir())]
    readers: dict[str, Callable[[Path], list[Source]]] = {"libritts": _libritts, "ljspeech": _ljspeech, "vctk": _vctk}
    for name in readers if corpus == "auto" else {corpus} & readers.keys():
        for place in places:
            if _has_layout(place, name):
                return name, readers[name](place)
    if corpus not in ("auto", "folder"):
        raise ValueError(f"The folder {shown(root)} is not laid out as {corpus} is: use --corpus folder.")
    return "folder", [Source(file) for file in scan_folder(root, _OPTION)]


def read_metadata(path: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None) -> list[Source]:
    """The recordings of a table of lines ``path|text|speaker``, as text-to-speech recipes have it.

    A path may lack its suffix, and leave out a folder ``wavs``. The third column may be missing.

    Args:
        path: the table, in UTF-8.
        folder: what its paths are relative to; default: the folder it lies in.

    Raises:
        FileNotFoundError: there is no such table.
        ValueError: it lists nothing.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no table {shown(path)}: check --metadata.")
    base = path.parent if folder is None else Path(folder)
    lines = path.read_bytes().decode("utf-8-sig", errors="surrogateescape").splitlines()
    sources: dict[str, Source] = {}
    for line in lines:
        name, *rest = (part.strip() for part in line.split("|"))
        if name:
            speaker = shown(rest[1]) if len(rest) > 1 and rest[1] else None
            sources[shown(name)] = Source(AudioFile(_recording(base, name), shown(name), speaker))
    if not sources:
        raise ValueError(f"The table {shown(path)} lists no recording: its lines must be path|text|speaker.")
    return list(sources.values())


def _recording(base: Path, name: str) -> Path:
    candidates = [base / name, base / "wavs" / name]
    candidates += [place.with_name(place.name + suffix) for place in candidates[:2] for suffix in sorted(RECORDINGS)]
    return next((path for path in candidates if os.path.isfile(path)), candidates[0])


def _has_layout(place: Path, corpus: str) -> bool:
    if corpus == "libritts":
        return any(_sets(place))
    if corpus == "ljspeech":
        return (place / "metadata.csv").is_file() and (place / "wavs").is_dir()
    return (place / "wav48_silence_trimmed").is_dir() or (place / "wav48").is_dir()


def _sets(place: Path) -> Iterator[str]:
    """Names of LibriTTS's sets: train-clean-100, dev-other, …"""
    for path in place.iterdir():
        if path.name.split("-")[0] in _SPLITS and path.name.endswith(("clean", "other", "-100", "-360", "-500")):
            yield path.name


def _libritts(place: Path) -> list[Source]:
    sets, sources = set(_sets(place)), []
    for file in scan_folder(place, _OPTION):
        parts = file.name.split("/")
        if parts[0] in sets and len(parts) > 2:
            sources.append(Source(replace(file, speaker=parts[1]), _SPLITS[parts[0].split("-")[0]]))
    return sources


def _ljspeech(place: Path) -> list[Source]:
    listed = read_metadata(place / "metadata.csv")  # id|text|normalized text
    return [Source(replace(source.file, name=f"wavs/{source.file.path.name}", speaker="LJ")) for source in listed]


def _vctk(place: Path) -> list[Source]:
    folder = next(path for path in (place / "wav48_silence_trimmed", place / "wav48") if path.is_dir())
    files = (file for file in scan_folder(folder, _OPTION) if "_mic2." not in file.name)
    return [Source(replace(file, speaker=file.name.split("/")[0])) for file in files]
