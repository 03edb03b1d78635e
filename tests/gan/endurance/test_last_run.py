"""Which run and which of its checkpoints ``last`` and ``auto`` stand for."""

import multiprocessing
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from univnet.common.lock import FolderInUseError, FolderLock
from univnet.gan.endurance.last_run import continue_in, find_checkpoint, note_job


def write(run: Path, name: str, steps: int, age: int = 0) -> Path:
    path = run / "checkpoints" / f"{name}.ckpt"
    path.parent.mkdir(parents=True, exist_ok=True)
    content: dict[str, Any] = {"global_step": steps, "optimizer_states": [], "gan": {"position": {}}, "state_dict": {}}
    torch.save(content | {"w": torch.zeros(1000)}, path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


def hold(folder: Path, said: Any) -> None:
    FolderLock(folder).acquire()
    said.send("held")
    signal.pause()


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("asked", ["last", "auto"])
def test_the_run_with_the_most_updates_goes_on_whatever_the_clock_says(asked: str, tmp_path: Path) -> None:
    write(tmp_path / "version_0", "last", 3)
    most = write(tmp_path / "version_1", "last", 7, age=1000)
    write(tmp_path / "version_2", "last", 5, age=10)
    assert find_checkpoint(asked, tmp_path) == most


def test_where_the_last_is_damaged_or_missing_the_newest_whole_one_goes_on(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    last, newest = write(run, "last", 9), write(run, "step_8", 8, age=99)
    write(run, "best", 6)
    damage(last)
    with pytest.warns(UserWarning, match=f"{last} is damaged"):
        assert find_checkpoint("last", tmp_path) == newest
    last.unlink()
    assert find_checkpoint("last", tmp_path) == newest


def test_without_any_auto_begins_and_last_refuses(tmp_path: Path) -> None:
    assert find_checkpoint("auto", tmp_path) is None
    with pytest.raises(ValueError, match=r"there is no last.ckpt under"):
        find_checkpoint("last", tmp_path)
    with pytest.raises(ValueError, match="--ckpt_path auto needs a logger with a save_dir"):
        find_checkpoint("auto", None)


def test_a_file_is_itself_and_nothing_is_nothing(tmp_path: Path) -> None:
    write(tmp_path / "version_0", "last", 3)
    assert find_checkpoint("x.ckpt", tmp_path) == Path("x.ckpt")
    assert find_checkpoint(None, tmp_path) is None


def test_a_runs_folder_is_that_run_and_another_folder_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "version_0"
    last, step = write(run, "last", 3), write(run, "step_2", 2)
    write(tmp_path / "version_1", "last", 7)
    assert find_checkpoint(str(run), tmp_path) == last
    last.unlink()
    assert find_checkpoint(str(run), tmp_path) == step
    step.unlink()
    with pytest.raises(ValueError, match="there is no whole checkpoint in"):
        find_checkpoint(str(run), tmp_path)
    for asked, folder in ((str(run / "checkpoints"), tmp_path), (str(run), tmp_path / "other"), (str(run), None)):
        with pytest.raises(ValueError, match="is no folder of a run"):
            find_checkpoint(asked, folder)


@pytest.mark.parametrize("asked", [None, "last", "auto", "x.ckpt"])
def test_a_job_queued_again_goes_on_with_its_own_run(
    asked: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "version_0", "last", 100)
    own = write(tmp_path / "version_1", "last", 3)
    monkeypatch.setenv("SLURM_JOB_ID", "77")
    note_job(tmp_path / "version_1")
    at_first = find_checkpoint(asked, tmp_path)
    assert at_first != own
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    assert find_checkpoint(asked, tmp_path) == own
    monkeypatch.setenv("SLURM_JOB_ID", "78")
    assert find_checkpoint(asked, tmp_path) == at_first


def test_a_run_that_is_being_written_to_is_left_alone(tmp_path: Path) -> None:
    write(tmp_path, "last", 3)
    (tmp_path / "metrics.csv").write_text("step\n1\n")
    forked = multiprocessing.get_context("fork")
    heard, said = forked.Pipe(duplex=False)
    holder = forked.Process(target=hold, args=(tmp_path / "checkpoints", said))
    holder.start()
    heard.recv()
    try:
        with pytest.raises(FolderInUseError, match=f"in use by process {holder.pid} on"):
            continue_in(tmp_path, {})
        assert (tmp_path / "metrics.csv").exists()
    finally:
        holder.kill()
        holder.join()
    continue_in(tmp_path, {})
    assert (tmp_path / "metrics-1.csv").read_text() == "step\n1\n"
