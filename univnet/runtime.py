"""What is set for the whole process: memory that is freed, and torch.compile."""

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
GRAPHS = 128  # compiled graphs that the networks of one class may have between them: theirs × turns × batch sizes


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


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Have each network compiled when it first runs, and for every new shape of its input.

    State dicts keep their names. A copy or a pickle of a network is not compiled.

    Raises:
        ValueError: on the CPU without a C++ compiler.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise ValueError(
            f"compile=True needs a C++ compiler on the CPU, and there is no {compiler}: install it, name yours in the "
            f"environment variable CXX, or leave compile out"
        )
    import torch._dynamo.config as dynamo  # takes a second
    import torch._functorch.config as autograd

    dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    autograd.donated_buffer = False  # the scores of the fakes have two backward passes
    for network in networks:
        network.compile(dynamic=False)
