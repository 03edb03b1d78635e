"""Checkpoint files that are whole: written beside their target, flushed and renamed; checked when they are read."""

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path, PurePath
from typing import Any, BinaryIO, cast

import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning_utilities.core.apply_func import apply_to_collection

from univnet.common.files import NO_ROOM, check_zip, remove_partial, written_whole
from univnet.gan.endurance.newest import newest_whole

_REMOTE = re.compile(r"^[A-Za-z][A-Za-z0-9+.-]+://")


class CheckpointError(OSError):
    """A checkpoint could not be written; the message is a sentence that names the file, what is left, and the mend."""

    def __str__(self) -> str:
        return str(self.strerror)


class WholeCheckpointIO(TorchCheckpointIO):
    """Lightning's checkpoint files, of which a kill, a full disk or another file system never costs a good one.

    A file is written beside its target, flushed to disk, and renamed, wherever ``$TMPDIR`` is. What a killed process
    left unfinished in a folder is removed when the folder is first used. Addresses such as ``s3://…`` are left to
    Lightning. ``GANModule`` puts it in place of Lightning's own.
    """

    def __init__(self) -> None:
        self._cleaned = set[Path]()

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``, whole or not at all.

        Raises:
            CheckpointError: it cannot be written; names the file, why, and which checkpoint beside it is whole.
        """
        if storage_options is not None or _is_remote(path):
            super().save_checkpoint(checkpoint, path, storage_options)  # type: ignore[arg-type]
            return
        path = Path(path)
        self._clean(path.parent)
        if "callbacks" in checkpoint:  # a path that a user gave as such would not be read again with weights_only
            checkpoint["callbacks"] = apply_to_collection(checkpoint["callbacks"], PurePath, str)
        try:
            # Into a file of Python's: torch's own writer tells of a full disk without the system's error.
            with written_whole(path) as partial, partial.open("wb") as file:
                torch.save(checkpoint, cast(BinaryIO, _Sink(file)))
        except (OSError, RuntimeError) as error:
            cause = _system_error(error)
            if cause is None:
                raise
            raise _not_written(path, cause) from error

    def load_checkpoint(
        self, path: str | os.PathLike, map_location: Any = None, weights_only: bool | None = None
    ) -> dict[str, Any]:
        """Return the checkpoint in ``path``, on the CPU unless ``map_location`` says otherwise.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is damaged, by its own checksums.
        """
        if _is_remote(path):
            on_cpu: Callable = lambda storage, _: storage  # noqa: E731 - Lightning's default
            return super().load_checkpoint(path, map_location or on_cpu, weights_only)  # type: ignore[arg-type]
        self._clean(Path(path).parent)
        check_zip(path)
        return torch.load(path, map_location=map_location or "cpu", weights_only=weights_only)

    def remove_checkpoint(self, path: str | os.PathLike) -> None:
        """Remove ``path``, a file or a folder, if it is there."""
        if _is_remote(path):
            super().remove_checkpoint(path)  # type: ignore[arg-type]
        elif Path(path).is_dir():
            shutil.rmtree(path)
        else:
            Path(path).unlink(missing_ok=True)

    def _clean(self, folder: Path) -> None:
        folder = folder.absolute()
        if folder not in self._cleaned:
            self._cleaned.add(folder)
            remove_partial(folder)


class _Sink:
    """A file that takes no notice of what is written once it is closed.

    Where a signal raises within ``torch.save``, its writer is destroyed after the file is closed, writes the archive's
    end all the same, and an error then would abort the process.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: Any) -> int:
        return len(data) if self._file.closed else self._file.write(data)

    def flush(self) -> None:
        if not self._file.closed:
            self._file.flush()


def _is_remote(path: str | os.PathLike) -> bool:
    return bool(_REMOTE.match(str(path)))


def _system_error(error: BaseException | None) -> OSError | None:
    """Return the system's error that led to ``error``, if there is one; torch hides it behind one of its own."""
    seen = set[int]()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None


def _not_written(path: Path, cause: OSError) -> CheckpointError:
    why = os.strerror(cause.errno) if cause.errno else str(cause)
    whole = newest_whole(path.parent.glob("*.ckpt"))
    kept = f"{whole.path}, of update {whole.steps}, is whole" if whole else f"{path.parent} holds no other checkpoint"
    mend = "make room" if cause.errno in NO_ROOM else "see to it that the folder can be written to"
    mend += ", then go on from there" if whole else ", then start again"
    return CheckpointError(cause.errno, f"cannot write the checkpoint {path} ({why}); {kept}: {mend}", str(path))
