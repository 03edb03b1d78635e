"""Every limit from 1 to 300, every first size, every mode: against definitions written down otherwise."""

import math

import pytest

from univnet.gan.tuner.batch_size import accumulation, fastest, largest, with_margin


def searched(limit: int, first: int, cap: int, bisect: bool, max_trials: int = 100) -> tuple[int, list[int]]:
    tried: list[int] = []

    def fits(size: int) -> bool:
        tried.append(size)
        return size <= limit

    return largest(fits, first, cap, bisect, max_trials), tried


@pytest.mark.parametrize("first", [1, 2, 64, 512])
@pytest.mark.parametrize("bisect", [False, True])
def test_every_limit_is_found_in_few_trials(first: int, bisect: bool) -> None:
    grid = {first >> k for k in range(10)} | {first << k for k in range(14)}
    for limit in range(1, 301):
        found, tried = searched(limit, first, 8192, bisect)
        assert found == (limit if bisect else max(size for size in grid if 0 < size <= limit))
        assert tried[0] == first
        assert len(tried) == len(set(tried))
        if limit < first:
            bound = math.ceil(math.log2(first)) + 1
        else:
            bound = math.ceil(math.log2(limit / first)) + 2 + bisect * math.ceil(math.log2(limit))
        assert len(tried) <= bound


@pytest.mark.parametrize("cap", [1, 7, 12, 64, 300])
@pytest.mark.parametrize("first", [1, 2, 64, 512])
def test_no_size_above_the_cap_is_tried(first: int, cap: int) -> None:
    for limit in range(1, 301):
        found, tried = searched(limit, first, cap, bisect=True)
        assert found == min(limit, cap)
        assert tried[0] == min(first, cap)
        assert max(tried) <= cap
        power, _ = searched(limit, first, cap, bisect=False)
        assert power <= min(limit, cap) <= 2 * power + 1


def test_a_limit_below_one_and_a_limit_on_trials() -> None:
    assert searched(0, 64, 8192, bisect=True) == (0, [64, 32, 16, 8, 4, 2, 1])
    assert searched(300, 2, 8192, bisect=True, max_trials=3) == (8, [2, 4, 8])
    assert searched(300, 2, 8192, bisect=True, max_trials=0) == (0, [])
    assert searched(100, 500, 8192, bisect=False) == (62, [500, 250, 125, 62])  # Lightning's own expectation


def test_the_margin() -> None:
    assert [with_margin(size, 0.05) for size in (1, 2, 19, 20, 64, 100, 300)] == [1, 1, 18, 19, 60, 95, 285]
    assert [with_margin(10, share) for share in (0.0, 0.1, 0.3, 0.99)] == [10, 9, 7, 1]


def test_the_smallest_of_the_fastest() -> None:
    assert fastest({2: 10.0, 4: 19.0, 8: 29.0, 16: 29.5, 32: 29.4}) == 8
    assert fastest({2: 10.0, 4: 19.0, 8: 28.9, 16: 29.5, 32: 29.4}) == 16
    assert fastest({3: 1.0}) == 3


@pytest.mark.parametrize("ranks", [1, 3])
def test_accumulation_is_the_nearest_there_is(ranks: int) -> None:
    for target in (1, 7, 64, 97, 100, 256, 257):
        for most in range(1, 70):
            size, k = accumulation(target, most, ranks)
            assert 1 <= size <= most
            assert size > min(most, target / ranks) / 2
            off = abs(ranks * size * k - target)
            reachable = range(max(1, most // 2 + 1), most + 1)
            best = min(abs(ranks * each * times - target) for each in reachable for times in range(1, 300))
            assert off <= best
            if most * ranks >= target and target % ranks == 0:
                assert (size, k) == (target // ranks, 1)


def test_accumulation_in_words() -> None:
    assert accumulation(256, 64) == (64, 4)
    assert accumulation(256, 60) == (32, 8)  # exact, where 51 times 5 is one short
    assert accumulation(64, 24) == (16, 4)
    assert accumulation(257, 60) == (43, 6)  # 258
    assert accumulation(256, 24, ranks=4) == (16, 4)
    assert accumulation(256, 24, examples=100) == (20, 5)  # an epoch is all that a window can hold
