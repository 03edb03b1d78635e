"""Cyclical learning rates (Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv 1506.01186)."""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from univnet.common.mistakes import Mistakes

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# The windows of section 3.1, as functions of the triangular one, t in [0, 1].
_WINDOWS = {
    "triangular": lambda t: t,
    "welch": lambda t: 1.0 - (1.0 - t) ** 2,
    "hann": lambda t: 0.5 * (1.0 - math.cos(math.pi * t)),
}
_MODES = ("triangular", "triangular2", "exp_range")


class CyclicalLR(LRScheduler):
    """Let the learning rate rise from ``base_lr`` to ``max_lr`` and fall back, repeatedly (arXiv 1506.01186, §3.1).

    The arguments have the names of torch's ``CyclicLR``. Two things differ: the rise and fall can follow a Welch
    (parabolic) or Hann (sinusoidal) window, and by default momentum does not cycle, so that a GAN's AdamW keeps its
    betas (0.5, 0.9). Step it after each update (``interval: step``).

    Args:
        optimizer: the optimizer whose rate cycles.
        base_lr: the lowest rate; one number, or one per parameter group.
        max_lr: the highest rate of the first cycle; one number, or one per parameter group.
        window: the shape of a cycle: ``"triangular"`` (linear), ``"welch"`` or ``"hann"``.
        mode: ``"triangular"`` repeats the cycle; ``"triangular2"`` halves its height after each cycle;
            ``"exp_range"`` multiplies its height by ``gamma`` after each update.
        step_size_up: updates from ``base_lr`` to ``max_lr``.
        step_size_down: updates from ``max_lr`` back to ``base_lr``; default: ``step_size_up``.
        gamma: the factor of ``"exp_range"``.
        cycle_momentum: also cycle momentum (or Adam's first beta), inversely to the rate, between ``max_momentum``
            and ``base_momentum``.
        base_momentum: the lowest momentum, at the highest rate.
        max_momentum: the highest momentum, at ``base_lr``.
        last_epoch: updates made before, minus one; ``-1`` starts from the beginning.

    Raises:
        ValueError: if arguments are out of range; it names all of them.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: float | Sequence[float],
        max_lr: float | Sequence[float],
        window: Literal["triangular", "welch", "hann"] = "triangular",
        mode: Literal["triangular", "triangular2", "exp_range"] = "triangular",
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        gamma: float = 1.0,
        cycle_momentum: bool = False,
        base_momentum: float = 0.8,
        max_momentum: float = 0.9,
        last_epoch: int = -1,
    ) -> None:
        groups = optimizer.param_groups
        lows, highs = _per_group(base_lr, groups), _per_group(max_lr, groups)
        step_size_down = step_size_up if step_size_down is None else step_size_down
        mistakes = Mistakes(self)
        mistakes.unless(
            len(lows) == len(highs) == len(groups),
            f"base_lr and max_lr must be one number, or one for each of {len(groups)} groups",
        )
        mistakes.unless(
            all(0 <= low <= high < math.inf for low, high in zip(lows, highs, strict=False)),
            f"base_lr must be between 0 and max_lr, which must be finite, got {base_lr!r} and {max_lr!r}",
        )
        mistakes.unless(window in _WINDOWS, f"window must be one of {', '.join(_WINDOWS)}, got {window!r}")
        mistakes.unless(mode in _MODES, f"mode must be one of {', '.join(_MODES)}, got {mode!r}")
        mistakes.unless(
            min(step_size_up, step_size_down) >= 1,
            f"step sizes must be at least 1, got {step_size_up!r} up and {step_size_down!r} down",
        )
        mistakes.unless(
            not cycle_momentum or all("momentum" in group or "betas" in group for group in groups),
            "cycle_momentum needs an optimizer with momentum or betas",
        )
        mistakes.raise_all()
        self.max_lrs, self.window, self.mode, self.gamma = highs, window, mode, gamma
        self.step_size_up, self.step_size_down = step_size_up, step_size_down
        self.cycle_momentum, self.base_momentum, self.max_momentum = (
            cycle_momentum,
            base_momentum,
            max_momentum,
        )
        for group, low in zip(groups, lows, strict=True):
            group["initial_lr"] = low
            if last_epoch == -1:
                group["lr"] = low
        super().__init__(optimizer, last_epoch)

    def height(self, step: int) -> float:
        """Return the position of the rate between base (0) and maximum (1) after ``step`` updates."""
        length = self.step_size_up + self.step_size_down
        cycle, position = divmod(step, length)
        rising = position <= self.step_size_up
        t = position / self.step_size_up if rising else (length - position) / self.step_size_down
        scale = {"triangular": 1.0, "triangular2": 0.5**cycle, "exp_range": self.gamma**step}[self.mode]
        return _WINDOWS[self.window](t) * scale

    def get_lr(self) -> list[float | Any]:
        """Return each group's rate at the present update (torch's scheduler interface)."""
        height = self.height(self.last_epoch)
        if self.cycle_momentum:
            momentum = self.max_momentum - (self.max_momentum - self.base_momentum) * height
            for group in self.optimizer.param_groups:
                if "betas" in group:
                    group["betas"] = (momentum, *group["betas"][1:])
                else:
                    group["momentum"] = momentum
        return [low + (high - low) * height for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]

    def plot(self, steps: int | None = None, ax: "Axes | None" = None) -> "Axes":
        """Draw the first group's rate over ``steps`` updates (default: three cycles) and return the axes."""
        import matplotlib.pyplot as plt

        ax = ax or plt.figure(figsize=(6, 3), layout="constrained").subplots()
        steps = steps or 3 * (self.step_size_up + self.step_size_down)
        low, high = float(self.base_lrs[0]), self.max_lrs[0]
        ax.plot([low + (high - low) * self.height(step) for step in range(steps + 1)])
        ax.set(xlabel="update", ylabel="learning rate", title=f"{self.window} window, {self.mode} mode")
        return ax


def _per_group(value: float | Sequence[float], groups: Sequence[object]) -> list[float]:
    return list(value) if isinstance(value, Sequence) else [float(value)] * len(groups)
