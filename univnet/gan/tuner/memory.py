"""How much memory there is for a process to train in, and how much a tree of processes takes; from Linux's /proc.

A *budget* is bytes of main memory for a training process and its loader workers together: what is in use already,
shared libraries included, and what training adds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

RESERVE = 0.1  # share of the free memory that the default budget leaves alone
_KIB = 1024


def default_budget(processes: int = 1, root: Path = Path("/")) -> int:
    """Return what this process holds and 90 % of what is free, shared out among ``processes`` such processes, in bytes.

    Free is what the machine can give, or what the cgroup's limit leaves (version 1 or 2, with those above it) if that
    is less. What the kernel can take back, it counts as free.
    """
    free = min([_available(root), *_cgroup_free(root)])
    return usage(root / "proc/self").total + int(free * (1 - RESERVE) / processes)


def _available(root: Path) -> int:
    fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * _KIB


def _cgroup_free(root: Path) -> Iterator[int]:
    """Yield what each memory cgroup that this process is in leaves free, where it has a limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            mount, limit, used = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        top = root / mount
        folder = top / path.strip("/")
        # A container may see a path of the host's, of which only the top is here.
        for each in [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]:
            most, now = _read(each / limit).strip(), _read(each / used).strip()
            if most.isdecimal() and now.isdecimal():
                yield max(0, int(most) - int(now) + _inactive_file(each))


def _inactive_file(folder: Path) -> int:
    fields = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


@dataclass(frozen=True)
class Usage:
    """Bytes of main memory of one process.

    Attributes:
        anonymous: of its own, shared memory included.
        files: of files that it maps, such as shared libraries.
        data: what it has asked for, touched or not: what ``RLIMIT_DATA`` limits.
        peak: the most that ``anonymous`` and ``files`` have come to together.
    """

    anonymous: int
    files: int
    data: int
    peak: int

    @property
    def total(self) -> int:
        """What it occupies."""
        return self.anonymous + self.files


def usage(process: Path) -> Usage:
    """Return what the process of this folder in /proc occupies.

    Raises:
        ProcessLookupError: there is no such process any more.
    """
    fields = dict(line.split(":", 1) for line in _read(process / "status").splitlines() if ":" in line)
    if "VmRSS" not in fields:
        raise ProcessLookupError(f"{process} has ended")
    anonymous, shared, files, data, peak = (
        int(fields[name].split()[0]) * _KIB for name in ("RssAnon", "RssShmem", "RssFile", "VmData", "VmHWM")
    )
    return Usage(anonymous + shared, files, data, peak)


def private(process: Path) -> int:
    """Return the bytes that only the process of this folder in /proc occupies: of a forked one, what it added."""
    lines = _read(process / "smaps_rollup").splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) * _KIB for name in ("Private_Clean", "Private_Dirty") if name in fields)


def descendants(process: Path) -> Iterator[Path]:
    """Yield the folders in /proc of the processes that the one of this folder has started, and that they have."""
    for task in process.glob("task/*/children"):
        for child in _read(task).split():
            folder = process.parent / child
            yield folder
            yield from descendants(folder)


def _read(path: Path) -> str:
    """Return a file's text; that of a file that is not there, or whose process has ended, is empty."""
    try:
        return path.read_text()
    except OSError:
        return ""
