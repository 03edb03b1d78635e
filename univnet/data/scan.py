"""Finding the recordings in a folder: at any depth, through links, each once, saying what is not taken."""

import os
import warnings
from collections import Counter
from pathlib import Path

from univnet.audio import shown
from univnet.audio.io import RECORDINGS
from univnet.data.manifest import AudioFile

# Sound that libsndfile does not decode.
UNREAD = {
    ".m4a",
    ".mp4",
    ".aac",
    ".alac",
    ".wma",
    ".webm",
    ".mka",
    ".mkv",
    ".mov",
    ".avi",
    ".amr",
    ".3gp",
    ".ape",
    ".wv",
}
UNREAD |= {".tta", ".spx", ".shn", ".ac3", ".eac3", ".dts", ".ra", ".dsf", ".dff", ".mpc", ".mp2", ".raw", ".pcm"}


def scan_folder(root: str | os.PathLike[str], option: str = "data.root") -> list[AudioFile]:
    """Every recording under a folder that libsndfile decodes, sorted by name.

    Folders and files are also reached through symbolic links. What is reached more than once is taken once, under the
    name that goes through the fewest links, and of those under the first in the order of names; so loops end. Hard
    links are files of their own.

    One warning says what is there but not taken: sound in formats that are not decoded (counted by suffix), links that
    lead nowhere, and folders that cannot be opened.

    Args:
        root: the folder.
        option: that named it, for messages.

    Raises:
        FileNotFoundError: there is no such folder.
        NotADirectoryError: it is a file.
        ValueError: it holds no audio file.
    """
    root = Path(root)
    require_folder(root, option)
    search = _Search()
    search.run(root)
    if remarks := search.remarks():
        warnings.warn(f"In {shown(root)}, {'; '.join(remarks)}.", stacklevel=2)
    if not search.found:
        others = ", ".join(sorted(RECORDINGS - {".wav", ".flac", ".ogg"}))
        raise ValueError(
            f"The folder {shown(root)} holds no .wav, .flac, .ogg file at any depth: point {option} at recordings "
            f"({others} are read, too{''.join(f'; {remark}' for remark in remarks)})."
        )
    files = (AudioFile(path, shown(path.relative_to(root).as_posix())) for path in search.found)
    return sorted(files, key=lambda file: file.name)


def require_folder(root: Path, option: str) -> None:
    """Refuse a ``root`` that is no folder.

    Raises:
        FileNotFoundError: there is none.
        NotADirectoryError: it is a file.
    """
    if root.is_file():
        raise NotADirectoryError(f"{shown(root)} is a file: {option} must be the folder of the recordings.")
    if not root.is_dir():
        raise FileNotFoundError(f"There is no folder {shown(root)} to look for audio in: check {option}.")


class _Search:
    """A walk in rounds: what is reached through n links is looked at after all that is reached through fewer."""

    def __init__(self) -> None:
        self.found: list[Path] = []
        self._seen: set[str] = set()  # real paths of folders and files
        self._links: list[str] = []  # to follow in the next round
        self._unread: Counter[str] = Counter()
        self._broken: list[str] = []
        self._closed: list[str] = []

    def run(self, root: Path) -> None:
        self._folder(str(root), os.path.realpath(root))
        while self._links:
            links, self._links = sorted(self._links), []
            for link in links:
                self._follow(link)

    def _follow(self, link: str) -> None:
        real = os.path.realpath(link)
        if os.path.isdir(link):
            self._folder(link, real)
        elif os.path.isfile(link):
            self._file(link, real)
        elif not os.path.exists(link):
            self._broken.append(link)

    def _folder(self, path: str, real: str) -> None:
        """Look through a folder and all that it holds, leaving the links for later."""
        waiting = [(path, real)]
        while waiting:
            path, real = waiting.pop()
            if real in self._seen:
                continue
            self._seen.add(real)
            try:
                with os.scandir(path) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name, reverse=True)
            except OSError:
                self._closed.append(path)
                continue
            for entry in entries:
                if entry.is_symlink():
                    self._links.append(entry.path)
                elif entry.is_dir():
                    waiting.append((entry.path, os.path.join(real, entry.name)))
                elif entry.is_file():
                    self._file(entry.path, os.path.join(real, entry.name))

    def _file(self, path: str, real: str) -> None:
        suffix = os.path.splitext(path)[1].lower()
        if suffix not in RECORDINGS | UNREAD or real in self._seen:
            return
        self._seen.add(real)
        if suffix in RECORDINGS:
            self.found.append(Path(path))
        else:
            self._unread[suffix] += 1

    def remarks(self) -> list[str]:
        """What was there but is not taken."""
        remarks = []
        if self._unread:
            counts = ", ".join(f"{count} {suffix}" for suffix, count in self._unread.most_common())
            remarks.append(
                f"{self._unread.total()} files are in formats that are not read ({counts}): convert them, for example "
                "with `ffmpeg -i FILE FILE.flac`"
            )
        for kind, paths in (("links lead nowhere", self._broken), ("folders cannot be opened", self._closed)):
            if paths:
                remarks.append(f"{len(paths)} {kind}, for example {shown(min(paths))}")
        return remarks
