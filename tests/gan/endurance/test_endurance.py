"""Runs that are killed and stopped at random, leave what the uninterrupted one leaves (``make endurance``)."""

from collections import Counter
from pathlib import Path
from random import Random

import pytest
from support.endurance import endure


@pytest.mark.parametrize("seed", range(4))
def test_a_minute_of_it(seed: int, tmp_path: Path) -> None:
    count: Counter[str] = Counter()
    endure(tmp_path, Random(seed), 15.0, count)
    assert count["runs"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes_of_it(tmp_path: Path) -> None:
    count: Counter[str] = Counter()
    endure(tmp_path, Random(10), 600.0, count)
    assert count["kills"] > 30
