"""Means, intervals and paired differences."""

import math
from pathlib import Path

import numpy as np
import pytest
import scipy.stats

from univnet.metrics.report.run import Row
from univnet.metrics.report.statistics import Estimate, by_speaker, differences, estimate, summarize


def row(utterance: str, contestant: str, value: float, speaker: str = "") -> Row:
    return Row(utterance, speaker, contestant, 1.0, {"m": value}, Path())


def test_the_interval_is_scipys() -> None:
    values = np.random.default_rng(1).exponential(size=40)
    found = estimate(values)
    assert found is not None
    expected = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=20000, method="percentile", rng=np.random.default_rng(2)
    ).confidence_interval
    assert found.mean == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), rel=0.02)
    assert estimate(values) == found  # seeded
    assert estimate(values, seed=1) != found


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    found = [estimate(rng.normal(3, 1, 30)) for _ in range(200)]
    covered = sum(each is not None and each.low < 3 < each.high for each in found)
    assert 175 <= covered <= 199  # percentiles of 30 values are a little narrow


def test_what_is_not_defined_is_left_out_and_one_value_has_no_width() -> None:
    assert estimate([math.nan, 2.0, math.nan]) == Estimate(2.0, 2.0, 2.0, 1)
    assert estimate([math.nan]) is None


def test_groups_and_pairs() -> None:
    rows = [
        row("a", "x", 1.0, "s"),
        row("a", "y", 3.0, "s"),
        row("b", "x", 2.0, "t"),
        row("b", "y", 7.0, "t"),
        row("c", "y", 100.0, "t"),  # x lacks it: no pair
    ]
    [(pair, line)] = differences(rows, ["x", "y"], ["m"]).items()
    assert pair == ("x", "y")
    assert line["m"] is not None
    assert (line["m"].mean, line["m"].low, line["m"].high, line["m"].count) == (-3.5, -5.0, -2.0, 2)
    whole = summarize(rows, ["x", "y"], ["m", "n"])
    assert whole["x"]["m"] is not None
    assert whole["x"]["m"].mean == 1.5
    assert whole["x"]["n"] is None
    speakers = by_speaker(rows, ["x", "y"], ["m"])
    assert list(speakers) == ["s", "t"]
    assert speakers["t"]["y"]["m"] is not None
    assert speakers["t"]["y"]["m"].count == 2
    assert by_speaker([row("a", "x", 1.0)], ["x"], ["m"]) == {}
