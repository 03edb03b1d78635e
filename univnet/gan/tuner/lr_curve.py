"""The result of a learning-rate range test for one player: loss against learning rate, and suggested rates."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple, get_args

import numpy as np

log = logging.getLogger(__name__)

Method = Literal["steepest", "steep", "valley", "slide", "minimum", "edge"]
METHODS: tuple[Method, ...] = get_args(Method)
DEFAULT_METHOD: Method = "edge"  # the best in our measurements: docs/learning_rates.md
_LEAST_POINTS = 2  # a gradient needs them
_NOISE_FACTOR = 7.0  # simulated curves of noise alone fall further in 1 of 100 cases


class Bounds(NamedTuple):
    """The rates between which to cycle (Smith 2017, arXiv 1506.01186, §3.3)."""

    base_lr: float
    max_lr: float


@dataclass
class LRCurve:
    """One player's loss against its learning rate.

    Attributes:
        player: the player whose rate was swept.
        monitor: the watched term.
        lr: the rising rates, one for each update of the player.
        raw: the loss at each rate: the mean over the window and over the repeats.
        smoothing: the weight of a neighbour in the smoothed curve; see ``smoothed``.
        runs: each repeat's smoothed losses.
        limit: the rate at which the player collapsed, if it did: no rate from there on is suggested.
        ended: why the test ended, in words.
        adversarial: whether the watched term depends on the other player.
    """

    player: str
    monitor: str
    lr: list[float]
    raw: list[float]
    smoothing: float = 0.0
    runs: list[list[float]] = field(default_factory=list)
    limit: float | None = None
    ended: str = ""
    adversarial: bool = False

    @cached_property
    def loss(self) -> list[float]:
        """The smoothed loss at each rate."""
        return smoothed(self.raw, self.smoothing)

    @property
    def results(self) -> dict[str, list[float]]:
        """``{"lr": […], "loss": […]}``, as in Lightning's finder."""
        return {"lr": self.lr, "loss": self.loss}

    def suggestion(
        self, skip_begin: int = 10, skip_end: int = 1, method: Method = DEFAULT_METHOD, quiet: bool = False
    ) -> float | None:
        """Return a learning rate to train at; ``None``, with a warning that gives the reason, if the curve shows none.

        Another warning says so if the rate has no basis: see ``doubt``.

        Args:
            skip_begin: points left out at the beginning.
            skip_end: points left out at the end.
            method: how the rate is chosen. ``"steepest"``: where the loss falls fastest with the rate itself
                (Lightning's method). The others only look at the first fall. ``"steep"``: where the loss falls fastest
                with the rate's logarithm; ``"valley"``: the middle of the longest falling subsequence; ``"slide"``:
                the end of the fall, the last rate before the slope changes; ``"minimum"``: a tenth of the rate of the
                lowest loss (these four are fastai's); ``"edge"``: the rate of the lowest loss itself, the highest at
                which the loss does not rise (Smith's maximum). AdamW trains well there; for plain gradient descent,
                which becomes unstable there, take half of it.
            quiet: log no warning.
        """
        at = self._points(skip_begin, skip_end)
        if problem := self.problem(skip_begin, skip_end):
            if not quiet:
                log.warning("Failed to compute suggestion for the %s's learning rate: %s", self.player, problem)
            return None
        if not quiet and (doubt := self.doubt()):
            log.warning("There is no basis for the learning rate suggested for the %s: %s", self.player, doubt)
        if method != "steepest":
            at = self._first_fall(at)
        lrs, losses = np.asarray(self.lr)[at], np.asarray(self.loss)[at]
        if method in ("minimum", "edge"):
            return float(lrs[losses.argmin()]) / (10 if method == "minimum" else 1)
        choose = {"steepest": _steepest, "steep": _steep, "valley": _valley, "slide": _slide}[method]
        return float(lrs[choose(lrs, losses)])

    def suggestions(self, skip_begin: int = 10, skip_end: int = 1) -> dict[str, float | None]:
        """Return every method's suggestion."""
        return {method: self.suggestion(skip_begin, skip_end, method, quiet=True) for method in METHODS}

    def problem(self, skip_begin: int = 10, skip_end: int = 1) -> str | None:
        """Return why no rate can be suggested, in a sentence; ``None`` if one can."""
        at = self._points(skip_begin, skip_end)
        if len(at) < _LEAST_POINTS:
            return (
                f"there are not enough points, {len(at)} of {len(self.loss)} count (the first {skip_begin} and last "
                f"{skip_end} do not): more updates (num_training) or a lower min_lr give more"
            )
        losses = np.asarray(self.loss)[at]
        if (np.maximum.accumulate(losses) - losses).max() <= self._noise():
            return (
                f"{self.monitor} does not fall by more than its noise: try other rates (min_lr, max_lr) or more "
                f"repeats, or check whether the model learns at all"
            )
        return None

    def doubt(self) -> str | None:
        """Return why a suggestion has no basis, in a sentence; ``None`` if it has one, or if there is no suggestion."""
        if self.problem():
            return None
        why = []
        if self.adversarial:
            why.append(
                f"{self.monitor} depends on the other player, so it tells how the two stand and not how good what is "
                f"generated is"
            )
        if not self.ended and self.limit is None and self.divergence is None:
            why.append(f"{self.monitor} never rises, so no rate was too high")
        if not why:
            return None
        return f"{', and '.join(why)}; watch a reconstruction loss (monitor) or the quality itself (metric)"

    @property
    def divergence(self) -> float | None:
        """The rate of the lowest loss, if the loss rises by more than its noise after it; otherwise ``None``."""
        at = self._first_fall(self._points(0, 0))
        losses = np.asarray(self.loss)[at]
        if len(at) < _LEAST_POINTS or losses[losses.argmin() :].max() - losses.min() <= self._noise():
            return None
        return self.lr[int(at[losses.argmin()])]

    def bounds(self, skip_begin: int = 0, skip_end: int = 1) -> Bounds | None:
        """Return the rates to cycle between (Smith 2017, arXiv 1506.01186, §3.3), or ``None``.

        They are the rate at which the loss starts to fall (the last before it has fallen by a tenth of its whole fall)
        and the last rate before it rises. ``None`` if no rate can be suggested.
        """
        if self.problem(skip_begin, skip_end):
            return None
        at = self._first_fall(self._points(skip_begin, skip_end))
        lrs, losses = np.asarray(self.lr)[at], np.asarray(self.loss)[at]
        least = int(losses.argmin())
        top = int(losses[: least + 1].argmax())  # the loss may rise before it falls
        fallen = losses[top : least + 1] < losses[top] - 0.1 * (losses[top] - losses[least])
        return Bounds(float(lrs[max(top + int(fallen.argmax()) - 1, 0)]), float(lrs[least]))

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain types, for JSON; ``None`` for values that are not finite."""
        return {
            "player": self.player,
            "monitor": self.monitor,
            "lr": self.lr,
            "loss": _finite_or_none(self.loss),
            "raw": _finite_or_none(self.raw),
            "runs": [_finite_or_none(run) for run in self.runs],
            "limit": self.limit,
            "ended": self.ended,
            "suggestions": self.suggestions(),
            "problem": self.problem(),
            "doubt": self.doubt(),
            "cyclical": bounds._asdict() if (bounds := self.bounds()) else None,
        }

    def _points(self, skip_begin: int, skip_end: int) -> np.ndarray:
        """Return the indices that count: not skipped, finite, and below the collapse."""
        at = np.arange(len(self.loss))[skip_begin : -skip_end or None]
        usable = np.isfinite(np.asarray(self.loss, dtype=float)[at])
        if self.limit is not None:
            usable &= np.asarray(self.lr)[at] < self.limit
        return at[usable]

    def _first_fall(self, at: np.ndarray) -> np.ndarray:
        """Return the points ``at`` up to where the loss, after falling, has clearly risen again.

        At unstable rates the loss may by chance become even lower. The first fall counts if it covers at least half of
        the way to the lowest loss of all, and the rise after it if it covers a quarter of that fall.
        """
        losses = np.asarray(self.loss)[at]
        if not len(losses):
            return at
        peak = np.maximum.accumulate(losses)
        least = 0
        for i, loss in enumerate(losses):
            if loss < losses[least]:
                least = i
            fall, rise = peak[least] - losses[least], loss - losses[least]
            deep = 0 < fall >= (peak[least] - losses.min()) / 2
            if deep and rise > max(fall / 4, self._noise()):
                return at[: i + 1]
        return at

    def _noise(self) -> float:
        """Return the largest fall of the smoothed loss that noise alone is likely to cause.

        The raw losses' spread is the median difference of neighbours before the lowest loss, because a trend or a few
        outliers hardly affect the median. Smoothing makes the spread smaller.
        """
        raw, finite = np.asarray(self.raw, dtype=float), np.isfinite(self.raw)
        if not self.smoothing or finite.sum() < _LEAST_POINTS:
            return 0.0
        least = int(np.where(finite, self.loss, np.inf).argmin())  # beyond it the loss may be unstable
        early = np.arange(len(raw)) <= max(least, len(raw) // 4)
        steps = np.abs(np.diff(raw[finite & early] if (finite & early).sum() >= _LEAST_POINTS else raw[finite]))
        spread = float(np.median(steps)) / (0.6745 * 2**0.5)
        reduction = (1 - self.smoothing) * ((1 + self.smoothing**2) / (1 - self.smoothing**2)) ** 0.5
        return _NOISE_FACTOR * spread * reduction / (1 + self.smoothing)


def smoothed(losses: Sequence[float], smoothing: float) -> list[float]:
    """Return a smooth curve through ``losses`` that is not shifted along the rates.

    Each loss is replaced by the median of the five around it, which removes single outliers, and then by the mean of
    all losses, weighted by ``smoothing`` to the power of their distance. The windows are shorter at the ends, so a
    constant stays constant. Losses that are not finite stay as they are and do not affect others. After the lowest
    loss, a loss counts at most as the largest before it or as four times the lowest. 0 switches smoothing off.
    """
    raw = np.asarray(losses, dtype=float)
    finite = np.isfinite(raw)
    if smoothing == 0 or not finite.any():
        return raw.tolist()
    known = np.where(finite, raw, np.nan)
    index = np.arange(len(raw))
    middle = np.array([np.nanmedian(known[max(i - 2, 0) : i + 3]) if finite[i] else np.nan for i in index])
    least = int(np.nanargmin(middle))
    cap = max(np.nanmax(middle[: least + 1]), middle[least] + 3 * abs(middle[least]))
    above = np.where(finite, np.minimum(middle, cap) - middle[least], 0.0)
    weights = smoothing ** np.abs(index[:, None] - index) * finite
    return np.where(finite, middle[least] + weights @ above / weights.sum(1), raw).tolist()


def _finite_or_none(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _steepest(lrs: np.ndarray, losses: np.ndarray) -> int:
    # In single precision and with torch's rule for the ends, so that the suggestion equals Lightning's.
    import torch

    gradient = torch.gradient(torch.tensor(losses.tolist()), spacing=[torch.tensor(lrs.tolist())])[0]
    return int(gradient.argmin())


def _steep(lrs: np.ndarray, losses: np.ndarray) -> int:
    return int(np.gradient(losses, np.log(lrs)).argmin())


def _valley(lrs: np.ndarray, losses: np.ndarray) -> int:
    """Return the middle of the longest strictly falling subsequence of the losses."""
    length, before = np.ones(len(losses), dtype=int), np.full(len(losses), -1)
    for i in range(1, len(losses)):
        higher = np.flatnonzero(losses[:i] > losses[i])
        if len(higher):
            before[i] = higher[length[higher].argmax()]
            length[i] = length[before[i]] + 1
    chain = [int(length.argmax())]
    while before[chain[-1]] >= 0:
        chain.append(int(before[chain[-1]]))
    return (chain[0] + chain[-1]) // 2


def _slide(lrs: np.ndarray, losses: np.ndarray, apart: int = 15, alike: float = 0.005) -> int:
    """Return the first point, from the end, whose slope is that of the point ``apart`` points after it.

    The slope is the change of loss per point, divided by the loss's range over the curve.
    """
    slope = np.gradient(losses) / (losses.max() - losses.min())
    apart = min(apart, len(losses) - 1)
    right = len(losses) - 1
    while right - apart > 0 and abs(slope[right] - slope[right - apart]) > alike:
        right -= 1
    return right - apart
