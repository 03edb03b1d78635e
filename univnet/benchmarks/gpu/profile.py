"""Part (c), closer: the dearest kernels of an update, and the share of the time that the device waits."""

import time
from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch.profiler import ProfilerActivity, profile

from univnet.benchmarks.contests import our_step
from univnet.benchmarks.gpu.scale import Row, Scale, optimizers_of

UPDATES = 3


def rows(scale: Scale) -> Iterator[Row]:
    """Yield the share of waiting and the ten dearest kernels, of the largest generator in bf16."""
    module, batch = scale.module(scale.channels[-1]), scale.noise()
    optimizers = optimizers_of(module)

    def updates() -> float:
        start = time.perf_counter()
        for _ in range(UPDATES):
            our_step(module, batch, optimizers, nullcontext)
        scale.wait()
        return time.perf_counter() - start

    with scale.precision("bf16"):
        updates()
        alone = updates()  # the profiler makes the host slower, and with it the device's waiting longer
        with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] * scale.cuda)]) as seen:
            updates()
    events = [(each.key, each.count, _microseconds(each, scale)) for each in seen.key_averages()]
    busy = sum(took for _, _, took in events) / 1e6
    kernels = sum(count for _, count, took in events if took)
    waits = max(0.0, 1 - busy / alone) if scale.cuda else None
    yield {"case": "an update", "seconds": alone / UPDATES, "busy s": busy / UPDATES, "waits": waits}
    yield {"case": "kernels of an update", "count": kernels / UPDATES}
    for name, count, took in sorted(events, key=lambda event: -event[2])[:10]:
        share = took / 1e6 / busy
        yield {"kernel": name[:100], "of an update": count / UPDATES, "ms": took / 1e3 / UPDATES, "share": share}


def _microseconds(event: object, scale: Scale) -> float:
    if not scale.cuda:
        return float(event.self_cpu_time_total)  # type: ignore[attr-defined]
    if event.device_type == torch.autograd.DeviceType.CPU:  # type: ignore[attr-defined]
        return 0.0  # what it has started is counted as an event of the device
    return float(event.self_device_time_total)  # type: ignore[attr-defined]
