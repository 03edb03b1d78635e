"""Another learning rate in the middle of training, where a schedule may be running."""

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

# torch's schedules whose rates are the optimizer's own times a factor (above ``eta_min``, where they have one).
FOLLOWING = (
    *("LambdaLR", "MultiplicativeLR", "StepLR", "MultiStepLR", "ConstantLR", "LinearLR", "ExponentialLR"),
    *("PolynomialLR", "CosineAnnealingLR", "CosineAnnealingWarmRestarts", "ReduceLROnPlateau"),
)


def change_rate(optimizer: Optimizer, schedulers: Sequence[Any], old: float, new: float) -> None:
    """Go on as if the optimizer had begun with the rate ``new`` where it began with ``old``.

    A schedule's present place stays: a rate that has fallen to a tenth falls to a tenth of the new one. Under
    ``ReduceLROnPlateau``, which has no base, and without a schedule, the present rate becomes ``new``.

    Args:
        optimizer: its state is loaded.
        schedulers: those that step its rate, each of a class in ``FOLLOWING``.
        old: the rate before.
        new: the rate from here on.
    """
    following = [each for each in schedulers if not isinstance(each, ReduceLROnPlateau)]
    floor = max((float(getattr(each, "eta_min", 0.0)) for each in following), default=0.0)
    for group in optimizer.param_groups:
        now = floor + (float(group["lr"]) - floor) * _ratio(old, new, floor) if following else new
        if isinstance(group["lr"], Tensor):
            group["lr"].fill_(now)
        else:
            group["lr"] = now
        if "initial_lr" in group:
            group["initial_lr"] = new
    for each in following:
        each.base_lrs = [new for _ in each.base_lrs]
    for each in schedulers:
        if hasattr(each, "_last_lr"):
            each._last_lr = list(_rates(optimizer))


def _rates(optimizer: Optimizer) -> Iterator[float]:
    return (float(group["lr"]) for group in optimizer.param_groups)


def _ratio(old: float, new: float, floor: float) -> float:
    return (new - floor) / (old - floor) if old != floor else 1.0
