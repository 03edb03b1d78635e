"""Which of several checkpoint files to go on from: the one with the most updates made, if it is whole."""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from univnet.common.files import check_zip


class Whole(NamedTuple):
    """A checkpoint file that is whole, and the generator updates made by then."""

    path: Path
    steps: int


def newest_whole(
    paths: Iterable[Path], passed_over: Callable[[Path, Exception], None] = lambda path, error: None
) -> Whole | None:
    """Return the whole training checkpoint among ``paths`` that is furthest on, by its own counts; ``None``: none is.

    The clock decides between equals alone: copying a folder, or another machine's clock, changes nothing else. Of
    files of weights alone, none can be gone on from.

    Args:
        paths: files to choose from.
        passed_over: told of each damaged file that comes before the answer, and why.
    """
    told: list[tuple[Path, Exception]] = []
    found = []
    for path in paths:
        try:
            found.append((_progress(path), path.stat().st_mtime, path))
        except Exception as error:  # torch raises many kinds for a file that is damaged
            told.append((path, error))
    answer = None
    for progress, _, path in sorted(found, reverse=True):
        try:
            check_zip(path)
        except (OSError, ValueError) as error:
            told.append((path, error))
            continue
        answer = Whole(path, progress[0])
        break
    for path, error in told:
        passed_over(path, error)
    return answer


def _progress(path: Path) -> tuple[int, int, bool, int]:
    """Return what grows in the course of a run: updates, micro-batches, that the validation and the epoch are behind."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    checkpoint["optimizer_states"]  # noqa: B018 - a file of weights alone lacks them
    position = checkpoint.get("gan", {}).get("position", {})
    behind = not position.get("validation", False)
    return checkpoint["global_step"], position.get("total_batches", 0), behind, position.get("epoch", 0)
