"""Part (c): updates a second, memory, and the share of the device's peak, in every way to compute an update."""

import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch

from univnet.benchmarks import measure, plain
from univnet.benchmarks.contests import our_step
from univnet.benchmarks.gpu.child import guarded
from univnet.benchmarks.gpu.correctness import quiet_trainer
from univnet.benchmarks.gpu.scale import Row, Scale, optimizers_of
from univnet.runtime import compile_networks, keep_freed_memory

# Name: (precision, channels-last discriminators, optimizer's way, compiled)
WAYS: dict[str, tuple[str, bool | None, str, bool]] = {
    "float32": ("float32", None, "fused", False),
    "TF32": ("tf32", None, "fused", False),
    "TF32, channels-last": ("tf32", True, "fused", False),
    "bf16": ("bf16", None, "fused", False),
    "bf16, channels-last": ("bf16", True, "fused", False),
    "bf16, foreach AdamW": ("bf16", None, "foreach", False),
    "bf16, compiled": ("bf16", None, "fused", True),
}


def rows(scale: Scale) -> Iterator[Row]:
    """Yield the device's peaks, then a row for each size and way; the trainer's and the plain step's are beside."""
    keep_freed_memory(not scale.cuda)
    peaks = {name: measure.machine_peak(scale.device, dtype, scale.updates) for name, dtype in _TYPES.items()}
    for name, found in peaks.items():
        yield {"case": f"peak, {name}", **{f"{kind}, TFLOP/s": value / 1e12 for kind, value in found.items()}}
    for channels in scale.channels:
        flops = scale.batch * measure.flops(partial(_one_example, scale, channels))
        for name, way in WAYS.items():
            if way[3] and not scale.compile:
                continue
            peak = peaks["bf16" if way[0] == "bf16" else "float32"]["convolution"]
            yield guarded(f"c{channels}, {name}", bare, scale, channels, way, flops, peak)
        for precision in ("tf32", "bf16"):
            yield guarded(f"c{channels}, plain step, {precision}", of_plain, scale, channels, precision)
            yield guarded(f"c{channels}, trainer, {precision}", in_trainer, scale, channels, precision)


_TYPES = {"float32": torch.float32, "bf16": torch.bfloat16}


def _one_example(scale: Scale, channels: int) -> None:
    one = replace(scale, device="cpu")
    module = one.module(channels)
    our_step(module, one.noise(1), optimizers_of(module))


def bare(scale: Scale, channels: int, way: tuple[str, bool | None, str, bool], flops: int, peak: float) -> Row:
    """Time updates without a trainer, in one of the ``WAYS``."""
    precision, channels_last, optimizer, compiled = way
    module, batch = scale.module(channels), scale.noise()
    for part in module.discriminator.parts().values():
        setattr(part, "channels_last", channels_last)  # noqa: B010 - mypy knows no such attribute of a module
    if compiled:
        compile_networks(
            (*module.generator.blocks_to_compile(), *module.discriminator.parts().values()), torch.device(scale.device)
        )
    optimizers = optimizers_of(module)
    if optimizer == "foreach":
        optimizers = tuple(torch.optim.AdamW(each.param_groups, betas=(0.5, 0.9), foreach=True) for each in optimizers)  # type: ignore[assignment]
    with scale.precision(precision):
        found = timed(scale, lambda: our_step(module, batch, optimizers, nullcontext))
    return {**found, "of peak": flops * found["updates/s"] / peak}


def of_plain(scale: Scale, channels: int, precision: str) -> Row:
    """Time updates in the reference's order of work, with torch's defaults."""
    module, batch = scale.module(channels), scale.noise()
    optimizers = optimizers_of(module)
    noise = torch.randn(scale.batch, 64, scale.segment // 256, device=scale.device)
    with scale.precision(precision):
        return timed(scale, lambda: plain.step(module, batch, noise, optimizers))


def in_trainer(scale: Scale, channels: int, precision: str) -> Row:
    """Time updates in a real trainer, whose batches are on the device already."""
    module, batch = scale.module(channels), scale.noise()
    clock = _Clock(scale)
    module.on_train_batch_end = clock  # type: ignore[method-assign]
    half = "bf16-mixed" if precision == "bf16" else "32-true"
    trainer = quiet_trainer(scale, max_steps=2 * scale.updates, precision=half)
    if scale.cuda:
        torch.cuda.reset_peak_memory_stats(scale.device)
    with scale.precision(precision) if precision == "tf32" else nullcontext():
        trainer.fit(module, _Same(batch, 2 * scale.updates))
    return {**clock.found(), "peak MB": _peak(scale)}


class _Same(torch.utils.data.IterableDataset):
    """The same batch again and again."""

    def __init__(self, batch: Any, count: int) -> None:
        self.batch, self.count = batch, count

    def __iter__(self) -> Iterator[Any]:
        return iter([self.batch] * self.count)


class _Clock:
    """A module's hook that times the second half of a run."""

    def __init__(self, scale: Scale) -> None:
        self.scale, self.done, self.start, self.end = scale, 0, 0.0, 0.0

    def __call__(self, *_: Any) -> None:
        self.done += 1
        if self.done in (self.scale.updates, 2 * self.scale.updates):
            self.scale.wait()
            self.start, self.end = self.end, time.perf_counter()

    def found(self) -> Row:
        return _speed(self.scale, self.end - self.start)


def timed(scale: Scale, step: Callable[[], object]) -> Row:
    """Return updates and seconds of audio per second, how long the host takes to ask for one, and the peak memory."""
    for _ in range(3 if scale.cuda else 1):
        step()
    scale.wait()
    if scale.cuda:
        torch.cuda.reset_peak_memory_stats(scale.device)
    start = time.perf_counter()
    for _ in range(scale.updates):
        step()
    asked = time.perf_counter() - start
    scale.wait()
    found = _speed(scale, time.perf_counter() - start)
    return {**found, "host ms": 1000 * asked / scale.updates, "peak MB": _peak(scale)}


def _speed(scale: Scale, seconds: float) -> Row:
    per_second = scale.updates / seconds
    return {"updates/s": per_second, "audio s/s": per_second * scale.batch * scale.segment / 24000}


def _peak(scale: Scale) -> float | None:
    return torch.cuda.max_memory_allocated(scale.device) / 1e6 if scale.cuda else None
