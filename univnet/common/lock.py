"""One process at a time writes to a folder; the kernel lets go of the lock when that process dies."""

import os
import socket
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows has no such locks, and there are none then
    fcntl = None  # type: ignore[assignment]

NAME = ".lock"


class FolderInUseError(OSError):
    """Another process that is alive writes to the folder."""


class FolderLock:
    """A lock on ``folder``, which is made if it is missing.

    It is a file in it that names its holder. What counts is the kernel's lock on that file: it ends with the process,
    is not shared by processes forked off, and holds between machines where the file system has such locks.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._descriptor: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            FolderInUseError: another process has it; it is named.
        """
        if fcntl is None or self._descriptor is not None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / NAME
        while self._descriptor is None:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            try:
                fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except (BlockingIOError, PermissionError):
                holder = os.read(descriptor, 200).decode(errors="replace").strip() or "another process"
                os.close(descriptor)
                raise FolderInUseError(
                    f"{self.folder} is in use by {holder}: wait for it, stop it, or write to another folder"
                ) from None
            except OSError:  # a file system without locks
                os.close(descriptor)
                return
            if _is(path, descriptor):  # else the one who had it has just removed the file
                self._descriptor = descriptor
            else:
                os.close(descriptor)
        os.ftruncate(self._descriptor, 0)
        os.pwrite(self._descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)

    def release(self) -> None:
        """Give it back, if it is held."""
        if self._descriptor is not None:
            (self.folder / NAME).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None


def _is(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False
