"""TensorBoard's files after kills hold every scalar once, in order; so do a CSV logger's."""

import csv
import shutil
from pathlib import Path

import pytest
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from support.enduring import scalars
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.tensorboard import SummaryWriter

from univnet.gan.endurance.logs import mark, rewind, rewind_csv


def logger(folder: Path, *steps: int, offset: float = 0.0) -> TensorBoardLogger:
    made = TensorBoardLogger(folder, "", "")
    for step in steps:
        made.log_metrics({"x": step + offset}, step)
    made.save()
    return made


def test_what_was_logged_after_the_checkpoint_is_logged_again_once(tmp_path: Path) -> None:
    first = logger(tmp_path, 1, 2)
    marks = mark([first])
    first.log_metrics({"x": 3.0}, 3)
    first.finalize("killed")
    shown = EventAccumulator(str(tmp_path)).Reload()  # a board that is open all the time
    assert [event.step for event in shown.Scalars("x")] == [1, 2, 3]
    second = logger(tmp_path)
    rewind([second], marks, 2)
    second.log_metrics({"x": 30.0}, 3)
    second.finalize("killed")  # without a checkpoint
    third = logger(tmp_path)
    rewind([third], marks, 2)
    third.log_metrics({"x": 300.0}, 3)
    third.save()
    assert scalars(tmp_path) == [("x", 1, 1.0), ("x", 2, 2.0), ("x", 3, 300.0)]
    assert [(event.step, event.value) for event in shown.Reload().Scalars("x")] == [(1, 1.0), (2, 2.0), (3, 300.0)]
    assert len(list(tmp_path.glob("*.tfevents.*"))) == 2


def test_files_of_others_stay(tmp_path: Path) -> None:
    first = logger(tmp_path / "a", 1)
    marks = mark([first])
    with SummaryWriter(str(tmp_path / "a"), filename_suffix=".validation") as writer:
        writer.add_scalar("y", 5.0, 9)
    rewind([logger(tmp_path / "a")], marks, 1)
    assert [row for row in scalars(tmp_path / "a") if row[0] == "y"] == [("y", 9, 5.0)]
    elsewhere = logger(tmp_path / "b", 1, 2, 3)
    elsewhere.finalize("done")
    rewind([logger(tmp_path / "b")], marks, 1)
    assert [step for _, step, _ in scalars(tmp_path / "b")] == [1, 2, 3]


def test_a_file_without_a_checkpoints_mark_stays(tmp_path: Path) -> None:
    logger(tmp_path, 1, 2).finalize("done")
    rewind([logger(tmp_path)], {}, 1)
    assert [step for _, step, _ in scalars(tmp_path)] == [1, 2]


def test_rows_of_a_csv_logger_are_counted_also_where_columns_are_added(tmp_path: Path) -> None:
    made = CSVLogger(tmp_path, "", "")
    for step in (1, 2):
        made.log_metrics({"x": float(step)}, step)
    marks = mark([made])
    made.log_metrics({"x": 3.0, "y": 3.0}, 3)
    made.save()
    path = tmp_path / "metrics.csv"
    rewind_csv(path, marks)
    with path.open(newline="") as file:
        assert [row["step"] for row in csv.DictReader(file)] == ["1", "2"]
    before = path.read_bytes()
    rewind_csv(path, marks)
    rewind_csv(path, {})
    assert path.read_bytes() == before


@pytest.mark.parametrize("left", [0, 5, 30])
def test_an_event_file_cut_off_by_a_kill_is_read_as_far_as_it_goes(left: int, tmp_path: Path) -> None:
    first = logger(tmp_path, 1)
    marks = mark([first])
    first.finalize("done")
    second = logger(tmp_path)
    rewind([second], marks, 1)
    second.finalize("killed")
    second_file = max(tmp_path.glob("*.tfevents.*"), key=lambda path: path.name.split(".")[3:])
    shutil.copy(second_file, tmp_path / "keep")
    with second_file.open("r+b") as file:
        file.truncate(left)
    rewind([logger(tmp_path)], marks, 1)
    assert scalars(tmp_path) == [("x", 1, 1.0)]
