"""A pickle that runs code when it is loaded by a reader that lets it."""

import pickle
from pathlib import Path
from typing import Any

import torch


class Touch:
    """Unpickling makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def hostile_file(path: Path, content: dict[str, Any]) -> Path:
    """Write ``content`` and a :class:`Touch` to ``path`` by ``torch.save``; return the file that loading would make."""
    ran = path.with_name("it-ran")
    torch.save({**content, "extra": Touch(ran)}, path)
    torch.load(path, weights_only=False)  # it does run, where it may
    assert ran.exists()
    ran.unlink()
    return ran


def hostile_pickle(path: Path) -> Path:
    """Write a plain pickle that does the same, without torch's own archive around it."""
    ran = path.with_name("it-ran")
    path.write_bytes(pickle.dumps(Touch(ran)))
    return ran
