"""Which batch sizes to try, and which to keep: arithmetic alone."""

from collections.abc import Callable


def largest(fits: Callable[[int], bool], first: int, cap: int, bisect: bool, max_trials: int) -> int:
    """Return the largest size that fitted; 0 where none did.

    ``min(first, cap)`` is tried first. While all fits it is doubled, up to ``cap``; while nothing fits it is halved,
    down to 1. With ``bisect`` the sizes between the last two are searched as well.

    With L the limit found, there are at most ⌈log2(L / first)⌉ + 2 trials upwards or ⌈log2(first)⌉ + 1 downwards, and
    with ``bisect`` ⌈log2(L)⌉ more; never more than ``max_trials``.
    """
    fitted, failed, size = 0, 0, min(first, cap)
    for _ in range(max_trials):
        if fits(size):
            fitted = size
        else:
            failed = size
        if not failed:
            if fitted == cap:
                break
            size = min(2 * fitted, cap)
        elif not fitted:
            if failed == 1:
                break
            size = failed // 2
        elif bisect and failed - fitted > 1:
            size = (fitted + failed) // 2
        else:
            break
    return fitted


def with_margin(size: int, margin: float) -> int:
    """Return ``size`` less the share ``margin`` of it, rounded down, and at least 1."""
    return max(1, int(size * (1 - margin) + 1e-9))  # 1 − 0.1 is a little less than 0.9


def fastest(examples_per_second: dict[int, float], within: float = 0.02) -> int:
    """Return the smallest size whose speed is ``within`` of the best."""
    best = max(examples_per_second.values())
    return min(size for size, speed in examples_per_second.items() if speed >= (1 - within) * best)


def accumulation(target: int, largest: int, ranks: int = 1, examples: int | None = None) -> tuple[int, int]:
    """Return the micro-batch and K for which ``ranks`` · micro-batch · K is nearest to ``target``.

    The micro-batch is at most ``largest`` and more than half of it, unless ``target`` itself is smaller: smaller ones
    would only be slower. Of equally near ones it is the largest. No window holds more than an epoch's ``examples`` (of
    each rank).
    """
    if examples is not None:
        target = min(target, ranks * examples)
    largest = min(largest, -(-target // ranks))
    choices = []
    for size in range(largest // 2 + 1, largest + 1):
        below = max(1, target // (ranks * size))
        choices += [(abs(ranks * size * k - target), -size, k) for k in (below, below + 1)]
    _, size, k = min(choices)
    return -size, k
