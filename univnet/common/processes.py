"""Which processes of this machine are alive."""

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
