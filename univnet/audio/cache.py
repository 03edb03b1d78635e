"""Decoded audio that is kept, in a folder or in memory, so that a recording is decoded once and not for every part."""

import logging
import mmap
import os
import struct
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from univnet.audio.io import AudioReader, check_place, read_segment, repaired
from univnet.audio.resampling import Resampling, resampled_length
from univnet.common.files import remove_partial, written_whole
from univnet.common.processes import reading_threads

log = logging.getLogger(__name__)

_MAGIC = b"univnet1"
_HEAD = struct.Struct("<8sqqqqq")  # magic, bytes of a sample, Hz, samples, and what the recording's size and time were


class _Form(NamedTuple):
    """How a recording is kept: as whole numbers of 16 bits where that is what it holds, else as float32; mono."""

    itemsize: int
    rate: int
    samples: int

    @classmethod
    def of(cls, audio: AudioReader) -> "_Form":
        whole = audio.file.subtype == "PCM_16" and audio.file.channels == 1
        return cls(2 if whole else 4, audio.own_rate, audio.frames)

    @property
    def dtype(self) -> np.dtype:
        return np.dtype("<i2" if self.itemsize == 2 else "<f4")

    @property
    def size(self) -> int:
        return self.itemsize * self.samples

    def packed(self, part: Tensor) -> np.ndarray:
        values = part[0].numpy()
        return (values * 32768).astype(self.dtype) if self.itemsize == 2 else values.astype(self.dtype)

    def unpacked(self, values: np.ndarray) -> np.ndarray:
        return values.astype(np.float32) / np.float32(32768) if self.itemsize == 2 else values.astype(np.float32)


class FolderCache:
    """Recordings decoded into a folder, each whole when it is first read; for any number of processes at once.

    What is kept of a recording counts while the recording has the size and the time of change that it had; else it is
    decoded again. Processes share what they read through the system's memory, as with all files. A full disk is said
    once, and then what is not kept is read as without a cache. About 2 bytes per sample for mono recordings of 16 bits,
    else 4.

    Args:
        folder: made if it is missing; may be deleted at any time.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        remove_partial(self.folder)
        self._full = False

    def read(
        self,
        path: str | os.PathLike[str],
        start: int,
        length: int,
        sample_rate: int,
        offset: float = 0.0,
        gain: float = 1.0,
        own_rate: int | None = None,
    ) -> Tensor:
        """Part of a recording: the very samples of ``read_segment``, with the same arguments and errors."""
        where = (start, length, sample_rate, offset, gain, own_rate)
        try:
            status = os.stat(path)
        except OSError:
            return read_segment(path, *where)  # which says what is wrong
        stamp = (status.st_size, status.st_mtime_ns)
        entry = self.folder / blake2b(os.fsencode(os.path.abspath(path)), digest_size=16).hexdigest()
        if (part := _kept(entry, stamp, path, *where)) is not None:
            return part
        if not self._full:
            try:
                _keep(path, entry, stamp)
            except OSError as error:
                if error.filename != str(entry):  # it is the recording's
                    raise
                self._full = True
                log.warning(
                    "The cache of decoded audio takes no more: %s. What is not in it is read as without.", error
                )
            else:
                if (part := _kept(entry, stamp, path, *where)) is not None:
                    return part
        return read_segment(path, *where)


def _kept(entry: Path, stamp: tuple[int, int], path: str | os.PathLike[str], *where: Any) -> Tensor | None:
    """Read a part from an entry; None if there is none of the recording as it is now."""
    try:
        file = os.open(entry, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError:
        return None
    try:
        head = os.read(file, _HEAD.size)
        if len(head) < _HEAD.size:
            return None
        magic, itemsize, rate, samples, *theirs = _HEAD.unpack(head)
        form = _Form(itemsize, rate, samples)
        if magic != _MAGIC or tuple(theirs) != stamp or os.fstat(file).st_size != _HEAD.size + form.size:
            return None

        def own(first: int, last: int) -> np.ndarray:
            os.lseek(file, _HEAD.size + itemsize * first, os.SEEK_SET)
            return form.unpacked(np.frombuffer(os.read(file, itemsize * (last - first)), form.dtype))

        return _part(own, form, path, *where)
    finally:
        os.close(file)


def _keep(path: str | os.PathLike[str], entry: Path, stamp: tuple[int, int]) -> None:
    with AudioReader(path) as audio:
        form = _Form.of(audio)
        with written_whole(entry) as partial, partial.open("wb") as file:
            file.write(_HEAD.pack(_MAGIC, *form, *stamp))
            for part in audio.parts():
                file.write(form.packed(part).tobytes())


class MemoryCache:
    """Recordings decoded into memory at once, which processes that are forked later share with this one.

    What happens to the files afterwards is not noticed. Those that cannot be decoded are read as without a cache.

    Args:
        paths: of the recordings.
        workers: threads; default: one a processor, at most 16.

    Raises:
        ValueError: they do not fit into the memory that is free.
    """

    def __init__(self, paths: Iterable[str | os.PathLike[str]], workers: int | None = None) -> None:
        names = list(dict.fromkeys(str(os.fspath(path)) for path in paths))
        with ThreadPoolExecutor(workers or reading_threads()) as pool:
            forms = dict(zip(names, pool.map(_form, names), strict=True))
            self._places: dict[str, tuple[int, _Form]] = {}
            total = 0
            for name, form in forms.items():
                if form is not None:
                    self._places[name] = total, form
                    total += -(-form.size // 8) * 8
            if total > (free := _free()):
                raise ValueError(
                    f"The recordings take {total / 1e9:.2f} GB once decoded, but {free / 1e9:.2f} GB of memory are "
                    "free: cache them in a folder, with --data.cache DIR."
                )
            self._memory = mmap.mmap(-1, max(total, 1))  # shared with forks
            whole = list(pool.map(self._fill, self._places))
        self._places = {name: self._places[name] for name, kept in zip(self._places, whole, strict=True) if kept}
        log.info("%d recordings are in memory, %.2f GB.", len(self._places), total / 1e9)

    def __reduce__(self) -> Any:
        raise TypeError(
            "A cache in memory can only be shared with processes that are forked: cache in a folder, with --data.cache "
            "DIR, which may be in /dev/shm."
        )

    def _values(self, name: str) -> np.ndarray:
        place, form = self._places[name]
        return np.frombuffer(self._memory, form.dtype, form.samples, place)

    def _fill(self, name: str) -> bool:
        form, filled, values = self._places[name][1], 0, self._values(name)
        try:
            with AudioReader(name) as audio:
                for part in audio.parts():
                    values[filled : filled + part.shape[1]] = form.packed(part)
                    filled += part.shape[1]
                return _Form.of(audio) == form
        except (OSError, ValueError):
            return False

    def read(
        self,
        path: str | os.PathLike[str],
        start: int,
        length: int,
        sample_rate: int,
        offset: float = 0.0,
        gain: float = 1.0,
        own_rate: int | None = None,
    ) -> Tensor:
        """Part of a recording: the very samples of ``read_segment``, with the same arguments and errors."""
        where = (start, length, sample_rate, offset, gain, own_rate)
        name = str(os.fspath(path))
        if name not in self._places:
            return read_segment(path, *where)
        form, values = self._places[name][1], self._values(name)
        return _part(lambda first, last: form.unpacked(values[first:last]), form, path, *where)


def _form(name: str) -> _Form | None:
    try:
        with AudioReader(name) as audio:
            return _Form.of(audio)
    except (OSError, ValueError):
        return None


def _part(
    own: Callable[[int, int], np.ndarray],
    form: _Form,
    path: str | os.PathLike[str],
    start: int,
    length: int,
    sample_rate: int,
    offset: float,
    gain: float,
    own_rate: int | None,
) -> Tensor:
    rate = own_rate or form.rate
    check_place(path, start, length, resampled_length(form.samples, rate, sample_rate), sample_rate)

    def mended(first: int, last: int) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):
            return repaired(own(first, last), offset, gain)

    return Resampling(rate, sample_rate).part(mended, form.samples, start, length)


def _free() -> float:
    """Bytes of memory that can be taken; infinity where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return float("inf")
    sizes: Sequence[str] = [line.split()[1] for line in lines if line.startswith("MemAvailable:")]
    return 1024 * int(sizes[0]) if sizes else float("inf")
