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
        passed_over: told of each file that is damaged or holds weights alone, and why.
    """
    found = []
    for path in paths:
        try:
            found.append((_progress(path), path.stat().st_mtime, path))
        except Exception as error:  # torch raises many kinds for a file that is damaged
            passed_over(path, error)
    for progress, _, path in sorted(found, reverse=True):
        try:
            check_zip(path)
        except (OSError, ValueError) as error:
            passed_over(path, error)
        else:
            return Whole(path, progress[0])
    return None


def _progress(path: Path) -> tuple[int, int, bool, int]:
    """Return what grows in the course of a run: updates, micro-batches, whether a validation is behind, epochs."""
    checkpoint: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    if "optimizer_states" not in checkpoint:
        raise ValueError(f"{path} holds weights alone")
    position = checkpoint.get("gan", {}).get("position", {})
    behind = not position.get("validation", False)
    return checkpoint["global_step"], position.get("total_batches", 0), behind, position.get("epoch", 0)
