"""Processes of this machine: which are alive, and on how many processors this one may run."""

import os
from pathlib import Path


def is_running(process: int) -> bool:
    """Whether a process of this machine runs: not one that is dead and only waits for its parent to take note."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return True


def available_processors() -> int:
    """Return the number of processors that this process may use: a container or a job can have fewer than there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def reading_threads() -> int:
    """Return how many threads read files best: one per processor, but no more than a disk can serve."""
    return min(16, available_processors())
