"""Files that are written whole or not at all, so that a kill or a full disk never costs the file that was there."""

import errno
import os
import re
import socket
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from univnet.common.processes import is_running

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)  # what a full disk, a quota and a limit on files say
_MARK = ".partial"
_NAME = re.compile(rf"^\..*\.(?P<host>[\w-]+)\.(?P<process>\d+){re.escape(_MARK)}$", re.DOTALL)
_DAY = 24 * 3600.0  # after so many seconds another machine's partial file is taken for abandoned
_LONGEST = 120  # characters of the target's name in the partial file's: together they stay below the limit of 255 bytes


@contextmanager
def written_whole(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a name beside ``path`` to write to; at the end that file is flushed to disk and renamed to ``path``.

    The folder is made if it is missing. When the block raises, ``path`` stays as it was and the partial file is
    removed; when the process is killed, ``remove_partial`` removes it later.

    Raises:
        OSError: the file cannot be written; it names ``path``.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    short = os.fsencode(path.name)[:_LONGEST].decode(errors="ignore")  # also for a name that is not UTF-8
    partial = path.with_name(f".{short}.{_host()}.{os.getpid()}{_MARK}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(partial), partial):
            raise OSError(error.errno, error.strerror or str(error), str(path)) from error
        raise
    finally:
        partial.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` to ``path`` in UTF-8, whole or not at all."""
    with written_whole(path) as partial:
        partial.write_text(text, encoding="utf-8")


def check_zip(path: str | os.PathLike[str]) -> None:
    """Check ``path`` against the checksums that a ZIP file holds, which is what checkpoints are.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no ZIP file; it names ``path``.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except PermissionError:
        raise
    except Exception as error:  # the kinds that a damaged header leads to are many, OSError among them
        raise ValueError(f"{path} is damaged or no checkpoint: give another file that training wrote") from error
    if damaged is not None:
        raise ValueError(f"{path} is damaged (its part {damaged}): give another file that training wrote")


def sync_folder(folder: Path) -> None:
    """Flush to disk which files ``folder`` has, where the system can: a rename is not safe before."""
    if os.name != "posix":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:  # some network file systems cannot
        pass
    finally:
        os.close(descriptor)


def remove_partial(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove the partial files in ``folder`` whose writers are gone; return them.

    A writer on this machine is gone when its process is; one on another machine, when its file has not changed for a
    day.
    """
    gone = []
    for path in Path(folder).glob(f".*{_MARK}"):
        match = _NAME.match(path.name)
        if match and not _is_being_written(path, match["host"], int(match["process"])):
            path.unlink(missing_ok=True)
            gone.append(path)
    return gone


def _is_being_written(path: Path, host: str, process: int) -> bool:
    if host != _host():
        try:
            return time.time() - path.stat().st_mtime < _DAY
        except FileNotFoundError:
            return False
    return process != os.getpid() and is_running(process)  # this very process is not writing while it cleans up


def _host() -> str:
    return re.sub(r"[^\w-]", "-", socket.gethostname())[:40] or "localhost"
