"""Measure time, memory, floating-point operations, and the machine's peak speed."""

import re
import statistics
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

Work = Callable[[], object]


def alternate(contestants: Mapping[str, Work], repeats: int, device: str) -> dict[str, list[float]]:
    """Run every contestant once to warm up, then all in turn, ``repeats`` times; return the seconds of each run.

    They take turns so that a machine that slows down or is shared affects all of them equally.
    """
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for repeat in range(repeats + 1):
        for name, work in contestants.items():
            _wait(device)
            start = time.perf_counter()
            work()
            _wait(device)
            if repeat:
                seconds[name].append(time.perf_counter() - start)
    return seconds


def summary(seconds: list[float]) -> dict[str, float]:
    """Return the median, the minimum and the maximum."""
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}


def peak_memory(work: Work, device: str) -> tuple[int, int] | None:
    """Return how many bytes running ``work`` twice adds at its peak, and how many of them stay.

    On CUDA it is torch's allocated memory. On the CPU it is this process's resident memory, so use a process that has
    done nothing else and returns freed memory to the system. ``None`` if the system has no /proc, as Linux has.
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        work()
        return torch.cuda.max_memory_allocated(device) - before, torch.cuda.memory_allocated(device) - before
    if not Path("/proc/self/status").exists():
        return None
    with suppress(OSError):  # resets the peak; if the system refuses, the peak so far counts
        Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmHWM")
    work()
    work()
    return _resident("VmHWM") - before, _resident("VmRSS") - before


class _FlopCounter(TorchDispatchMode):
    """Sums torch's formulas for each operation; torch's own counter does not allow computing gradients inside it."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = flop_registry.get(func.overloadpacket)
        if count is None:
            with self:  # in inference mode conv1d and others arrive undecomposed
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        self.total += count(*args, **kwargs, out_val=result)
        return result


def flops(work: Work) -> int:
    """Count the multiplications and additions in the matrix products and convolutions of ``work``.

    It may be on the meta device. It runs without oneDNN, so that no convolution has a group per frame: torch's formula
    overestimates those.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about TF32, which does not change here
        with torch.backends.mkldnn.flags(enabled=False), _FlopCounter() as counter:
            work()
    return counter.total


def machine_peak(device: str, dtype: torch.dtype, repeats: int = 5) -> dict[str, float]:
    """Measure FLOP/s of a large matrix product and of a large convolution (3 × 3, 256 channels, channels-last)."""
    cuda = torch.device(device).type == "cuda"
    n, batch = (8192, 64) if cuda else (2048, 4)
    a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
    x, w = (
        torch.randn(shape, device=device, dtype=dtype).contiguous(memory_format=torch.channels_last)
        for shape in ((batch, 256, 64, 64), (256, 256, 3, 3))
    )
    works: dict[str, Work] = {"matrix_product": lambda: a @ b, "convolution": lambda: torch.conv2d(x, w, padding=1)}
    operations = {"matrix_product": 2 * n**3, "convolution": 2 * batch * 64 * 64 * 256 * 256 * 9}
    with torch.inference_mode():
        seconds = alternate(works, repeats, device)
    return {name: operations[name] / min(seconds[name]) for name in works}


def _resident(which: str) -> int:
    found = re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())
    assert found
    return 1024 * int(found[1])


def _wait(device: str) -> None:
    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)
