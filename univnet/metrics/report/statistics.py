"""Means with intervals, by the bootstrap over utterances."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from univnet.metrics.report.run import Row

RESAMPLES = 5000
LEVEL = 0.95
INTERVALS = f"{LEVEL:.0%} intervals by the bootstrap over utterances ({RESAMPLES} times, percentiles)"
FEW = 10  # below, the bootstrap's intervals are much too narrow: by √((n − 1) / n) for their width alone
_AT_ONCE = 1_000_000  # numbers drawn at a time


@dataclass(frozen=True)
class Estimate:
    """A mean over ``count`` utterances and its interval."""

    mean: float
    low: float
    high: float
    count: int


def estimate(values: Iterable[float], seed: int = 0) -> Estimate | None:
    """Return the mean of the values that are not NaN, with its 95 % percentile bootstrap interval.

    Args:
        values: one per utterance.
        seed: of the resampling; equal input gives equal intervals.

    Returns:
        ``None`` where there is no value.
    """
    array = np.array([value for value in values if value == value], dtype=np.float64)
    if not len(array):
        return None
    rng, means = np.random.default_rng(seed), []
    rows = max(1, _AT_ONCE // len(array))
    for first in range(0, RESAMPLES, rows):
        size = (min(rows, RESAMPLES - first), len(array))
        means.append(array[rng.integers(len(array), size=size)].mean(axis=1))
    low, high = np.quantile(np.concatenate(means), [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return Estimate(float(array.mean()), float(low), float(high), len(array))


Estimates = dict[str, Estimate | None]  # by metric


def summarize(rows: Sequence[Row], contestants: Sequence[str], metrics: Sequence[str]) -> dict[str, Estimates]:
    """Return the estimates of every contestant."""
    return {
        name: {
            metric: estimate(row.values.get(metric, float("nan")) for row in rows if row.contestant == name)
            for metric in metrics
        }
        for name in contestants
    }


def by_speaker(
    rows: Sequence[Row], contestants: Sequence[str], metrics: Sequence[str]
) -> dict[str, dict[str, Estimates]]:
    """Return the summary of every speaker, sorted by name; empty where no speaker is known."""
    speakers = sorted({row.speaker for row in rows} - {""})
    return {name: summarize([row for row in rows if row.speaker == name], contestants, metrics) for name in speakers}


def differences(
    rows: Sequence[Row], contestants: Sequence[str], metrics: Sequence[str]
) -> dict[tuple[str, str], Estimates]:
    """Return, for every two contestants, the first one's values minus the second's on the utterances of both."""
    values = {(row.contestant, row.utterance): row.values for row in rows}
    utterances = list(dict.fromkeys(row.utterance for row in rows))
    nothing: dict[str, float] = {}

    def paired(first: str, second: str, metric: str) -> Estimate | None:
        return estimate(
            values.get((first, each), nothing).get(metric, float("nan"))
            - values.get((second, each), nothing).get(metric, float("nan"))
            for each in utterances
        )

    return {
        (first, second): {metric: paired(first, second, metric) for metric in metrics}
        for first, second in combinations(contestants, 2)
    }
