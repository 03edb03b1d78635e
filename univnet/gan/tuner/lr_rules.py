"""Which rates a range test goes through, and when it has seen enough."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

Mode = Literal["exponential", "linear"]


def sweep_rates(min_lr: float, max_lr: float, number: int, mode: Mode = "exponential") -> list[float]:
    """Return ``number`` rates from ``min_lr`` to ``max_lr``, both included, equal ratios or differences apart.

    Raises:
        ValueError: naming every argument that is out of range.
    """
    wrong = []
    if mode not in ("exponential", "linear"):
        wrong.append(f"mode must be 'exponential' or 'linear', got {mode!r}")
    if not 0 < min_lr < max_lr:
        wrong.append(f"the rates must be 0 < min_lr < max_lr, got {min_lr!r} and {max_lr!r}")
    if number < 2:
        wrong.append(f"num_training must be at least 2, got {number!r}")
    if wrong:
        raise ValueError("; ".join(wrong))
    if mode == "linear":
        return [min_lr + i / (number - 1) * (max_lr - min_lr) for i in range(number)]
    return [min_lr * (max_lr / min_lr) ** (i / (number - 1)) for i in range(number)]


@dataclass(frozen=True)
class Collapse:
    """When the discriminator has won for good, so that the generator has nothing left to learn from.

    Args:
        loss: its loss falls to this share of its first one; 0 switches the rule off. It holds for positive losses.
        separation: its mean scores of real and of generated examples, the terms ``real_score`` and ``fake_score`` of
            its loss if it has them, are so far apart. In the unit of the scores: least-squares losses pull them to 1
            and 0. ``None`` switches the rule off.
    """

    loss: float = 0.05
    separation: float | None = 0.95

    def seen(self, report: Mapping[str, float], first_loss: float) -> str | None:
        """Return by which sign the discriminator that reports so has collapsed, if it has."""
        if first_loss > 0 and report["loss"] <= self.loss * first_loss:
            return f"its loss fell to {report['loss']:.2g}, from {first_loss:.2g} at first"
        if self.separation is not None and {"real_score", "fake_score"} <= report.keys():
            real, fake = report["real_score"], report["fake_score"]
            if real - fake >= self.separation:
                return f"it scores real examples {real:.2g} and generated ones {fake:.2g}"
        return None


def diverges(losses: Sequence[float], threshold: float | None, smoothing: float) -> bool:
    """Whether the last of ``losses``, smoothed, has risen to ``threshold`` times the best before it.

    Smoothed by the past alone, and judged once that is long enough. Where losses are or were negative a multiple of the
    best means nothing: then the rise is measured by the largest magnitude that they had until the best.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    settled = round(1 / (1 - smoothing))  # updates that the smoothing reaches back
    if threshold is None or len(finite) <= settled or not math.isfinite(losses[-1]):
        return False
    total = weight = 0.0
    past = []
    for loss in finite:
        total, weight = smoothing * total + loss, smoothing * weight + 1
        past.append(total / weight)
    *past, last = past[settled - 1 :]
    best = past.index(min(past))
    scale = past[best] if min(past[best], last) > 0 else max(map(abs, past[: best + 1]))
    return last > past[best] + (threshold - 1) * scale
