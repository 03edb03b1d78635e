"""Logs that fit the checkpoint a run goes on from: what was logged after it is taken out, since it is logged again."""

import csv
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from univnet.common.files import written_whole

_EVENTS = "*.tfevents.*"


def mark(loggers: Iterable[Logger]) -> dict[str, int]:
    """Return the sizes of TensorBoard's files in bytes, and of CSV files in rows, by name, as they are on disk now."""
    sizes: dict[str, int] = {}
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger) and (folder := _folder(logger)):
            logger.experiment.flush()
            for path in folder.glob(_EVENTS):
                with path.open("rb") as file:
                    os.fsync(file.fileno())
                    sizes[path.name] = os.fstat(file.fileno()).st_size
        elif isinstance(logger, CSVLogger) and (folder := _folder(logger)):
            logger.save()
            for path in folder.glob("metrics.csv"):
                sizes[path.name] = len(_rows(path)[1])
    return sizes


def rewind(loggers: Iterable[Logger], marks: Mapping[str, int], step: int) -> None:
    """Take out of TensorBoard's files what was logged after ``marks``, and tell readers that have it to drop it.

    A folder in which none of the files marked lies is another run's, and stays as it is.

    Args:
        loggers: with the files of this start.
        marks: what ``mark`` returned when the checkpoint was written.
        step: at which the checkpoint was written.
    """
    from torch.utils.tensorboard.writer import Event, SessionLog  # TensorBoard is loaded by now

    for logger in loggers:
        if not isinstance(logger, TensorBoardLogger) or not (folder := _folder(logger)):
            continue
        writer = logger.experiment.file_writer
        own = Path(writer.event_writer._file_name).name
        before = {path.name: path for path in folder.glob(_EVENTS) if path.name != own}
        if not before.keys() & marks.keys():
            continue
        for name, path in before.items():
            if name not in marks:
                if _of_a_start(path):  # one that has saved nothing
                    path.unlink()
            elif path.stat().st_size > marks[name]:
                os.truncate(path, marks[name])
        writer.add_event(Event(session_log=SessionLog(status=SessionLog.START)), step + 1)
        logger.experiment.flush()


def rewind_csv(path: Path, marks: Mapping[str, int]) -> None:
    """Take out of a CSV logger's file what was logged after ``marks``."""
    if path.name not in marks or not path.is_file():
        return
    header, rows = _rows(path)
    if len(rows) > marks[path.name]:
        with written_whole(path) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header, *rows[: marks[path.name]]])


def _of_a_start(path: Path) -> bool:
    """Whether a file of TensorBoard's begins as ``rewind`` has it begin; those of validations do not."""
    from torch.utils.tensorboard.writer import Event, SessionLog

    with path.open("rb") as file:
        for _ in range(16):
            length = file.read(12)[:8]  # then a checksum, the event, another checksum
            content = file.read(int.from_bytes(length, "little"))
            if len(file.read(4)) < 4:
                break
            if Event.FromString(content).session_log.status == SessionLog.START:
                return True
    return False


def _folder(logger: Any) -> Path | None:
    """Return the folder that ``logger`` writes to, if it is one of this machine."""
    folder = Path(logger.log_dir)
    return folder if folder.is_dir() else None


def _rows(path: Path) -> tuple[list[str], list[list[str]]]:
    with path.open(newline="", encoding="utf-8") as file:
        header, *rows = [*csv.reader(file)] or [[]]
    return header, rows
