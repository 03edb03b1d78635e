"""Keep what training frees, on the CPU."""

import ctypes
import sys
from typing import Any

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_MIB = 2**20


def keep_freed_memory(keep: bool = True) -> bool:
    """Let the C library keep the memory that this process frees for its next allocations, or give it back again.

    As it comes, glibc gives every block of more than 32 MiB back to the kernel and takes a new one, page after zeroed
    page, the next time: on the CPU some fifth of a training step's time, more on virtual machines (docs/speed.md).
    The process then stays as large as it ever was. GPUs' memory has nothing to do with it.

    Args:
        keep: False returns to glibc's ways, its thresholds where its own adapting leaves them at most.

    Returns:
        Whether this C library (glibc's malloc) took it.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):  # musl's, macOS's
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    if not keep:
        settings = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB}
    return all([libc.mallopt(option, value) for option, value in settings.items()])
