"""Settings of the whole process: what becomes of freed memory, how matrices are multiplied, and torch.compile."""

import ctypes
import os
import shutil
import sys
from collections.abc import Iterable
from importlib.util import find_spec
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


def suit_training(device: torch.device, matmul_precision: str = "high") -> None:
    """Make the settings with which training on ``device`` is fastest without another result.

    Args:
        device: on the CPU freed memory is kept (``keep_freed_memory``).
        matmul_precision: on a GPU, of float32 matrix products, as for ``torch.set_float32_matmul_precision``. "high" is
            TF32, in which torch computes convolutions anyway; a CPU would lose digits and gain nothing.
    """
    if device.type == "cpu":
        keep_freed_memory()
    else:
        torch.set_float32_matmul_precision(matmul_precision)


def _missing_to_compile(device: torch.device) -> str | None:
    if device.type == "cpu":
        language, variable, names = "C++", "CXX", ["clang++" if sys.platform == "darwin" else "g++"]
    elif device.type == "cuda":
        if find_spec("triton") is None:
            return "the package triton on a GPU, which is not installed: install it"
        language, variable, names = "C", "CC", ["gcc", "clang"]  # Triton's launchers are written in C
    else:
        return None
    given = os.environ.get(variable)
    if any(shutil.which(name) for name in ([given] if given else names)):
        return None
    where = "the CPU" if device.type == "cpu" else "a GPU"
    return (
        f"a {language} compiler on {where}, and there is no {given or ' or '.join(names)}: install it, name yours in "
        f"the environment variable {variable}"
    )


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Let torch compile each network when it first runs, and again for every new input shape.

    Names in state dicts stay the same. A copy or a pickle of a network is not compiled.

    Raises:
        ValueError: if what torch.compile needs is missing: on the CPU a C++ compiler, on CUDA Triton and a C compiler.
    """
    if missing := _missing_to_compile(device):
        raise ValueError(f"compile=True needs {missing}, or leave compile out")
    import torch._dynamo.config as dynamo  # slow to import: a second
    import torch._functorch.config as autograd

    dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    autograd.donated_buffer = False  # the scores of the fakes have two backward passes
    for network in networks:
        network.compile(dynamic=False)
