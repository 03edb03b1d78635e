"""Time, memory, floating-point operations, and what this machine can do at most."""

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
    """Run every contestant once unmeasured, then in turn `repeats` times; return each one's seconds.

    In turn, so that a machine that slows down or is shared slows all of them alike.
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
    """Return the median, and the extremes as its spread."""
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}


def peak_memory(work: Work, device: str) -> tuple[int, int] | None:
    """Return how many bytes running `work` twice adds at its peak, and how many of them stay.

    On CUDA what torch has allocated. On the CPU this process's resident memory, so run it in a process that has done
    nothing else and gives back what it frees; None where the system does not tell (it takes Linux's /proc).
    """
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        work()
        work()
        return torch.cuda.max_memory_allocated() - before, torch.cuda.memory_allocated() - before
    if not Path("/proc/self/status").exists():
        return None
    with suppress(OSError):  # makes the peak what is resident now; where it is refused the peak so far counts
        Path("/proc/self/clear_refs").write_text("5")
    before = _resident("VmHWM")
    work()
    work()
    return _resident("VmHWM") - before, _resident("VmRSS") - before


class _FlopCounter(TorchDispatchMode):
    """Sums up what torch knows of each operation; torch's own counter cannot be asked for gradients meanwhile."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        count = flop_registry.get(func.overloadpacket)
        if count is None:
            with self:  # inference mode brings conv1d and its like undivided
                result = func.decompose(*args, **kwargs)
            return func(*args, **kwargs) if result is NotImplemented else result
        result = func(*args, **kwargs)
        self.total += count(*args, **kwargs, out_val=result)
        return result


def flops(work: Work) -> int:
    """Count the multiplications and additions of the matrix products and convolutions of `work`; it may be on meta.

    It is run without oneDNN, so that no convolution is grouped frame by frame: torch's formulas overrate that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of TF32, which is not touched
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
        torch.cuda.synchronize()
