"""Settings of the whole process: what becomes of freed memory, and torch.compile."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4  # of malloc.h
_MIB = 2**20
GRAPHS = 128  # most compiled graphs of all networks of one class: networks × players' turns × batch sizes


def keep_freed_memory(keep: bool = True) -> bool:
    """Let the C library keep the memory that this process frees, for its next allocations.

    By default glibc returns every freed block of more than 32 MiB to the kernel, and the next allocation has to get
    zeroed pages: about a fifth of a training step's time on the CPU, more on virtual machines (docs/speed.md). With
    ``keep`` the process never becomes smaller. GPU memory is not affected.

    Args:
        keep: ``False`` restores glibc's behaviour, with the thresholds at the upper limit of what glibc chooses itself.

    Returns:
        Whether the C library accepted the setting; only glibc's malloc does.
    """
    libc: Any = ctypes.CDLL(None) if sys.platform == "linux" else None
    if not hasattr(libc, "mallopt"):  # musl's, macOS's
        return False
    settings = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
    if not keep:
        settings = {_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB}
    return all([libc.mallopt(option, value) for option, value in settings.items()])


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Let torch compile each network when it first runs, and again for every new input shape.

    Names in state dicts stay the same. A copy or a pickle of a network is not compiled.

    Raises:
        ValueError: if the device is a CPU and there is no C++ compiler.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise ValueError(
            f"compile=True needs a C++ compiler on the CPU, and there is no {compiler}: install it, name yours in the "
            f"environment variable CXX, or leave compile out"
        )
    import torch._dynamo.config as dynamo  # slow to import: a second
    import torch._functorch.config as autograd

    dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    autograd.donated_buffer = False  # the scores of the fakes have two backward passes
    for network in networks:
        network.compile(dynamic=False)
