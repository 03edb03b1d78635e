"""What a learning-rate range test has seen of one player: loss against learning rate, and what to read off it."""

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
DEFAULT_METHOD: Method = "edge"  # by our own trials: docs/learning_rates.md
_TOO_FEW = 2  # points: a gradient needs them
_CHANCE = 7.0


class Bounds(NamedTuple):
    """The rates between which to cycle (Smith 2017, section 3.3)."""

    base_lr: float
    max_lr: float


@dataclass
class LRCurve:
    """One player's loss against its learning rate.

    Attributes:
        player: whose rate was swept.
        monitor: the term watched.
        lr: the rates, rising; one for each update of the player.
        raw: the loss at each: the window's mean, and the mean over the repeats.
        smoothing: how it is smoothed; see :func:`smoothed`.
        runs: each repeat's smoothed losses.
        limit: the rate at which the player collapsed, if it did: nothing is suggested at or above it.
        ended: why the test ended, in words.
    """

    player: str
    monitor: str
    lr: list[float]
    raw: list[float]
    smoothing: float = 0.0
    runs: list[list[float]] = field(default_factory=list)
    limit: float | None = None
    ended: str = ""

    @cached_property
    def loss(self) -> list[float]:
        """The smoothed loss at each rate."""
        return smoothed(self.raw, self.smoothing)

    @property
    def results(self) -> dict[str, list[float]]:
        """``{"lr": […], "loss": […]}``, as Lightning's finder has them."""
        return {"lr": self.lr, "loss": self.loss}

    def suggestion(
        self, skip_begin: int = 10, skip_end: int = 1, method: Method = DEFAULT_METHOD, quiet: bool = False
    ) -> float | None:
        """Return a learning rate to train at; ``None``, with a warning that says why, where the curve shows none.

        Args:
            skip_begin: points left out at the beginning.
            skip_end: points left out at the end.
            method: ``"steepest"``: where the loss falls fastest, against the rate itself (Lightning's choice); the
                others look at the first fall alone:
                ``"steep"``: where it falls fastest against the rate's logarithm;
                ``"valley"``: the middle of the longest fall (of the longest falling subsequence);
                ``"slide"``: the end of the fall: the last rate before the slope changes for good;
                ``"minimum"``: a tenth of the rate of the least loss (these four are known from fastai);
                ``"edge"``: the rate of the least loss itself, the highest at which the loss does not rise (Smith's
                maximum). AdamW trains well there; plain gradient descent is about to turn unstable: take half.
            quiet: without a warning.
        """
        at = self._points(skip_begin, skip_end)
        if problem := self.problem(skip_begin, skip_end):
            if not quiet:
                log.warning("Failed to compute suggestion for the %s's learning rate: %s", self.player, problem)
            return None
        if method != "steepest":
            at = self._first_fall(at)
        lrs, losses = np.asarray(self.lr)[at], np.asarray(self.loss)[at]
        if method in ("minimum", "edge"):
            return float(lrs[losses.argmin()]) / (10 if method == "minimum" else 1)
        choose = {"steepest": _steepest, "steep": _steep, "valley": _valley, "slide": _slide}[method]
        return float(lrs[choose(lrs, losses)])

    def suggestions(self, skip_begin: int = 10, skip_end: int = 1) -> dict[str, float | None]:
        """Return what every method suggests."""
        return {method: self.suggestion(skip_begin, skip_end, method, quiet=True) for method in METHODS}

    def problem(self, skip_begin: int = 10, skip_end: int = 1) -> str | None:
        """Return why nothing can be suggested, in a sentence; ``None`` where it can."""
        at = self._points(skip_begin, skip_end)
        if len(at) < _TOO_FEW:
            return (
                f"there are not enough points, {len(at)} of {len(self.loss)} count (the first {skip_begin} and last "
                f"{skip_end} do not): more updates (num_training) or a lower min_lr give more"
            )
        losses = np.asarray(self.loss)[at]
        if (np.maximum.accumulate(losses) - losses).max() <= self._noise():
            return (
                f"{self.monitor} does not fall beyond its noise: try other rates (min_lr, max_lr) or more repeats, or "
                f"look whether the model learns at all"
            )
        return None

    @property
    def divergence(self) -> float | None:
        """The rate from which on the loss rises: where it is least, if it rises beyond its noise after that."""
        at = self._first_fall(self._points(0, 0))
        losses = np.asarray(self.loss)[at]
        if len(at) < _TOO_FEW or losses[losses.argmin() :].max() - losses.min() <= self._noise():
            return None
        return self.lr[int(at[losses.argmin()])]

    def bounds(self, skip_begin: int = 0, skip_end: int = 1) -> Bounds | None:
        """Return the rates to cycle between: where the loss starts to fall, and the last before it rises.

        (Smith 2017, arXiv 1506.01186, section 3.3.) It has started to fall when a tenth of the fall is behind it.
        ``None`` where nothing can be suggested.
        """
        if self.problem(skip_begin, skip_end):
            return None
        at = self._first_fall(self._points(skip_begin, skip_end))
        lrs, losses = np.asarray(self.lr)[at], np.asarray(self.loss)[at]
        least = int(losses.argmin())
        top = int(losses[: least + 1].argmax())  # before the loss starts to fall it may rise
        fallen = losses[top : least + 1] < losses[top] - 0.1 * (losses[top] - losses[least])
        return Bounds(float(lrs[max(top + int(fallen.argmax()) - 1, 0)]), float(lrs[least]))

    def as_dict(self) -> dict[str, Any]:
        """Return all of it in plain types, for JSON; ``None`` for what is not finite."""
        return {
            "player": self.player,
            "monitor": self.monitor,
            "lr": self.lr,
            "loss": _plain(self.loss),
            "raw": _plain(self.raw),
            "runs": [_plain(run) for run in self.runs],
            "limit": self.limit,
            "ended": self.ended,
            "suggestions": self.suggestions(),
            "problem": self.problem(),
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

        Beyond its stable range a player that is thrown about may by chance reach any loss, a lower one too. The first
        fall counts if it goes at least half the way to the least loss of all, and the rise after it if it takes back a
        quarter.
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
        """Return by how much chance alone lets the smoothed loss fall somewhere on the curve, hardly ever exceeded.

        The raw losses' spread is that of neighbours before the least, by the median, which a trend or a few outliers
        hardly touch; smoothing narrows it. (The factor is from simulated curves of noise alone: 1 in 100 falls
        further.)
        """
        raw, finite = np.asarray(self.raw, dtype=float), np.isfinite(self.raw)
        if not self.smoothing or finite.sum() < _TOO_FEW:
            return 0.0
        least = int(np.where(finite, self.loss, np.inf).argmin())  # beyond it the player may be thrown about
        early = np.arange(len(raw)) <= max(least, len(raw) // 4)
        steps = np.abs(np.diff(raw[finite & early] if (finite & early).sum() >= _TOO_FEW else raw[finite]))
        spread = float(np.median(steps)) / (0.6745 * 2**0.5)
        narrowed = (1 - self.smoothing) * ((1 + self.smoothing**2) / (1 - self.smoothing**2)) ** 0.5
        return _CHANCE * spread * narrowed / (1 + self.smoothing)


def smoothed(losses: Sequence[float], smoothing: float) -> list[float]:
    """Return a smooth curve through ``losses``, not shifted along the rates.

    Each loss becomes the median of the five about it, so that single outliers count for nothing, and then the mean of
    all, weighted by ``smoothing`` to the power of their distance. Fewer at the ends: a constant stays constant. Losses
    that are not finite stay as they are, and count for nothing in the others. One that shoots up after the least counts
    for no more than the largest before it, or four times the least. 0 leaves everything as it is.
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


def _plain(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]


def _steepest(lrs: np.ndarray, losses: np.ndarray) -> int:
    # In single precision and by torch's rule for the ends, as Lightning: its suggestion is ours.
    import torch

    gradient = torch.gradient(torch.tensor(losses.tolist()), spacing=[torch.tensor(lrs.tolist())])[0]
    return int(gradient.argmin())


def _steep(lrs: np.ndarray, losses: np.ndarray) -> int:
    return int(np.gradient(losses, np.log(lrs)).argmin())


def _valley(lrs: np.ndarray, losses: np.ndarray) -> int:
    """Return the middle, in rates' order, of the longest strictly falling subsequence of the losses."""
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
    """Return the first point, seen from the end, whose slope is that of the point ``apart`` after it.

    The slope is the change of loss a point, in units of the loss's range over the curve.
    """
    slope = np.gradient(losses) / (losses.max() - losses.min())
    apart = min(apart, len(losses) - 1)
    right = len(losses) - 1
    while right - apart > 0 and abs(slope[right] - slope[right - apart]) > alike:
        right -= 1
    return right - apart
