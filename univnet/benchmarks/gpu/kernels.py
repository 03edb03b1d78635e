"""Part (f): one rank of a distributed run, convolutions alone in both layouts, and where the host waits."""

import re
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from lightning.pytorch.strategies import DDPStrategy
from torch.utils.data import DataLoader

from univnet.benchmarks import measure
from univnet.benchmarks.gpu.child import guarded
from univnet.benchmarks.gpu.correctness import fitted, quiet_trainer
from univnet.benchmarks.gpu.scale import Row, Scale


def rows(scale: Scale) -> Iterator[Row]:
    """Yield the rank's row, a row for each convolution, and one for each line that waits for the device."""
    yield guarded("one rank", one_rank, scale)
    for name, (x, w, how) in convolutions(scale).items():
        for precision in ("tf32", "bf16"):
            case = f"convolution {name}, {precision}"
            yield guarded(case, by_layout, scale, x, w, how, precision)
    if not scale.cuda:
        yield {"note": "host synchronizations are listed on CUDA only"}
        return
    yield from waits(scale)


def one_rank(scale: Scale) -> Row:
    """Train in a process group of one, with NCCL on a GPU and gloo on the CPU: barriers, gathers, a checkpoint."""
    module = scale.module(scale.channels[0]).cpu()
    backend = "nccl" if scale.cuda else "gloo"
    trainer = fitted(scale, module, updates=2, strategy=DDPStrategy(process_group_backend=backend))
    assert torch.distributed.is_initialized()
    torch.distributed.destroy_process_group()
    return {"backend": backend, "updates": trainer.global_step, "right": trainer.global_step == 2}


def convolutions(scale: Scale) -> dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]]:
    """Return the shapes of the discriminators' convolutions: of the input, of the weight, and the other arguments."""
    batch, width = scale.batch, scale.width
    frames, bins = scale.segment // 120, 513
    time = scale.segment // 2 // 9
    return {
        "MRD first": ((batch, 1, frames, bins), (width, 1, 3, 9), {"padding": (1, 4)}),
        "MRD strided": ((batch, width, frames, bins), (width, width, 3, 9), {"padding": (1, 4), "stride": (1, 2)}),
        "MRD last": ((batch, width, frames, bins // 8), (1, width, 3, 3), {"padding": (1, 1)}),
        "MPD strided": (
            (batch, 4 * width, 2, time),
            (8 * width, 4 * width, 1, 5),
            {"padding": (0, 2), "stride": (1, 3)},
        ),
    }


def by_layout(
    scale: Scale, shape: tuple[int, ...], kernel: tuple[int, ...], how: dict[str, Any], precision: str
) -> Row:
    """Time forward and backward with both layouts."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    works: dict[str, measure.Work] = {}
    for name, layout in (("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)):
        x, w = (
            torch.randn(size, device=scale.device, dtype=dtype).to(memory_format=layout).requires_grad_()
            for size in (shape, kernel)
        )
        works[f"{name} ms"] = lambda x=x, w=w: torch.autograd.grad(F.conv2d(x, w, **how).float().sum(), (x, w))  # type: ignore[misc]
    with scale.precision("tf32"):
        seconds = measure.alternate(works, scale.updates, scale.device)
    return {name: 1000 * measure.summary(took)["median_s"] for name, took in seconds.items()}


def waits(scale: Scale) -> Iterator[Row]:
    """Yield the lines of this package or of Lightning at which the host waits for the device in a training step."""
    module = scale.module(scale.channels[0])
    steps = 3
    found: Counter[str] = Counter()

    def noted(message: Warning | str, *_: Any, **__: Any) -> None:
        if "synchronizing" not in str(message):
            return
        frames = [f for f in traceback.extract_stack() if re.search(r"/(univnet|lightning)/", f.filename)]
        here = [f for f in frames if "benchmarks" not in f.filename][-1:]
        found[" ".join(f"{re.sub('.*/(univnet|lightning)/', r'', f.filename)}:{f.lineno}" for f in here)] += 1

    batches = [{name: value[0].cpu() for name, value in scale.noise(1).items()} for _ in range(2 * steps)]
    trainer = quiet_trainer(scale, max_steps=2 * steps)
    started = module.on_train_batch_start

    def start(batch: Any, batch_idx: int) -> Any:
        torch.cuda.set_sync_debug_mode("warn" if batch_idx >= steps else "default")
        return started(batch, batch_idx)

    module.on_train_batch_start = start  # type: ignore[method-assign]
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = noted
        trainer.fit(module, DataLoader(batches, batch_size=1))  # type: ignore[arg-type]
    torch.cuda.set_sync_debug_mode("default")
    yield {"waits of an update": sum(found.values()) / steps}
    for line, count in found.most_common():
        yield {"line": line, "an update": count / steps}
