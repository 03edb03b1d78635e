"""Signals, at every moment of a run, end it in good order and lose nothing; nothing hangs. Real processes."""

import contextlib
import multiprocessing
import os
import shutil
import signal
import stat
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.enduring import HOOKS, SIGNALS, Blow, Plan, leavings, said, start, start_ranks
from support.state import assert_same

from univnet.gan.endurance.signals import StopSignals

PLAN = Plan(updates=(2, 1), validate_every=5, end={"max_epochs": 2})
RANKS = Plan(updates=(2, 1), validate_every=2, end={"max_epochs": 2}, averages=("ema",))  # five micro-batches a rank
AT = {  # a hook, and its call
    "before training": ("on_fit_start", 1),
    "in a micro-batch": ("on_train_batch_end", 7),
    "in an epoch's last micro-batch": ("on_train_batch_end", 10),
    "while saving": ("on_save_checkpoint", 3),
    "waiting for data": ("on_fetch_start", 8),
    "before a validation": ("on_micro_batch_end", 5),
    "in a validation": ("on_validation_batch_end", 2),
    "at a validation's end": ("on_validation_end", 1),
    "at an epoch's end": ("on_train_epoch_end", 1),
}
NOTHING_TO_WAIT_FOR = ("before training", "in a validation")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Plan, int], dict[str, Any]]:
    made: dict[int, dict[str, Any]] = {}

    def leavings_of(plan: Plan, ranks: int = 1) -> dict[str, Any]:
        if ranks not in made:
            folder = tmp_path_factory.mktemp("whole") / "run"
            assert set(start_ranks(folder, plan, ranks=ranks)) == {0}
            made[ranks] = leavings(folder)
        return made[ranks]

    return leavings_of


@pytest.mark.parametrize("at", AT)
def test_a_signal_loses_nothing_and_is_the_exit_status(at: str, tmp_path: Path, whole: Callable) -> None:
    hook, call = AT[at]
    number = SIGNALS[[*AT].index(at) % len(SIGNALS)]
    assert start(tmp_path / "run", PLAN, Blow(number, hook, call)) == 128 + number
    assert "Traceback" not in said(tmp_path / "run")
    assert ("saving after this micro-batch" in said(tmp_path / "run")) == (at not in NOTHING_TO_WAIT_FOR)
    assert start(tmp_path / "run", PLAN) == 0
    assert_same(leavings(tmp_path / "run"), whole(PLAN))


def test_a_kill_between_the_last_two_writings_of_a_run_leaves_last_behind_for_one_start(tmp_path: Path) -> None:
    plan, folder = Plan(updates=(1, 4), save_every=1, end={"max_steps": 24}), tmp_path / "run"
    assert start(folder, plan) == 0
    wanted = leavings(folder)
    shutil.copy(folder / "checkpoints" / "step_20.ckpt", folder / "checkpoints" / "last.ckpt")
    assert start(folder, plan) == 0  # from step_24.ckpt
    assert_same(leavings(folder), wanted)


def test_a_validation_that_is_left_is_due_and_is_not_finished_first(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    assert start(folder, PLAN, Blow(signal.SIGTERM, "on_validation_batch_start", 2)) == 143
    assert "val/l2" not in {tag for tag, _, _ in leavings(folder, best=False)["scalars"]}
    assert leavings(folder, best=False)["last"]["gan"]["position"]["validation"]


@pytest.mark.parametrize("to_all", [False, True], ids=["to the trainer", "to its workers, too"])
def test_with_workers_it_ends_also_within_a_validation(to_all: bool, tmp_path: Path, whole: Callable) -> None:
    plan = Plan(updates=(2, 1), validate_every=5, end={"max_epochs": 2}, workers=2)
    blow = Blow(signal.SIGTERM, "on_validation_batch_start", 2, to_all=to_all)
    assert start(tmp_path / "run", plan, blow, patience=30) == 143
    assert start(tmp_path / "run", plan) == 0
    assert_same(leavings(tmp_path / "run"), whole(PLAN))


def test_a_failure_in_a_validation_ends_the_run_with_workers_and_it_is_due(tmp_path: Path, whole: Callable) -> None:
    plan = Plan(updates=(2, 1), validate_every=5, end={"max_epochs": 2}, workers=2)
    missing = tmp_path / "run" / "missing"
    missing.mkdir(parents=True)
    assert start(tmp_path / "run", plan, patience=30) == 1
    assert "a file of the validation is gone" in said(tmp_path / "run")
    assert f"go on with --ckpt_path {tmp_path}/run/checkpoints/last.ckpt\n" in said(tmp_path / "run")
    missing.rmdir()
    assert start(tmp_path / "run", plan) == 0
    assert_same(leavings(tmp_path / "run"), whole(PLAN))


def test_slurm_queues_the_job_again_once_all_is_saved(
    tmp_path: Path, whole: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    tool, note = tmp_path / "bin" / "scontrol", tmp_path / "note"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >> {note}; ls {tmp_path}/run/checkpoints >> {note}\n')
    tool.chmod(tool.stat().st_mode | stat.S_IXUSR)
    slurm = {"JOB_ID": "77", "NTASKS": "1", "JOB_NAME": "vocoder", "PROCID": "0", "LOCALID": "0", "NODEID": "0"}
    for name, value in slurm.items():
        monkeypatch.setenv(f"SLURM_{name}", value)
    monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")
    assert start(tmp_path / "run", PLAN, Blow(signal.SIGUSR1, "on_train_batch_end", 4)) == 138
    assert note.read_text().splitlines()[0] == "requeue 77"
    assert "last.ckpt" in note.read_text()
    assert start(tmp_path / "run", PLAN, Blow(signal.SIGTERM, "on_train_batch_end", 4)) == 143  # SLURM's turn
    assert note.read_text().count("requeue") == 1
    assert start(tmp_path / "run", PLAN) == 0
    assert_same(leavings(tmp_path / "run"), whole(PLAN))


@pytest.mark.parametrize("room", [60, 4000, 20_000])
def test_a_full_disk_ends_the_run_and_loses_nothing(room: int, tmp_path: Path, whole: Callable) -> None:
    """First the event file is too large, then a checkpoint is; what was written before is whole."""
    folder = tmp_path / "run"
    assert start(folder, PLAN, Blow(signal.SIGKILL, "on_micro_batch_end", 7)) == -9
    last = folder / "checkpoints" / "last.ckpt"
    before = last.read_bytes()
    (folder / "said0.txt").rename(tmp_path / "said at first")
    assert start(folder, replace(PLAN, room=room)) == 1
    assert last.read_bytes() == before
    assert not list(folder.rglob(".*partial"))
    (folder / "said0.txt").unlink()
    assert start(folder, PLAN) == 0
    assert_same(leavings(folder), whole(PLAN))


def test_nothing_is_raised_while_a_queue_has_its_lock() -> None:
    class Lock(threading.Condition):
        def __enter__(self) -> bool:
            taken = super().__enter__()
            if not signals.asked and threading.current_thread() is threading.main_thread():
                os.kill(os.getpid(), signal.SIGUSR1)
            return taken

    signals = StopSignals()
    queue: Any = multiprocessing.get_context("fork").Queue()
    queue._notempty = Lock()
    signals.install()
    try:
        queue.put(1)
        assert queue._notempty.acquire(timeout=5)
        queue._notempty.release()
        assert queue.get(timeout=20) == 1
        with pytest.raises(SystemExit) as ended:
            signals.obey()
        assert ended.value.code == 128 + signal.SIGUSR1
        queue.close()
        queue.join_thread()
    finally:
        signals.asked = 0
        signals.restore()


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_that_has_to_wait_is_answered_at_once_and_once(
    number: int, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    signals = StopSignals(tells=True)
    signals.at_once = False
    signals._on_signal(number, None)
    signals._on_signal(signal.SIGTERM, None)
    told = capfd.readouterr().err
    assert told.strip().startswith(f"univnet: {signal.Signals(number).name}: saving after this micro-batch")
    assert ("a second Ctrl-C" in told) == (number == signal.SIGINT)
    assert told.count("univnet:") == 1


@pytest.mark.parametrize(
    ("tells", "at_once"), [(False, False), (True, True)], ids=["another rank", "nothing to wait for"]
)
def test_there_is_no_answer(tells: bool, at_once: bool, capfd: pytest.CaptureFixture[str]) -> None:
    signals = StopSignals(tells=tells)
    signals.at_once = at_once
    with contextlib.suppress(SystemExit):
        signals._on_signal(signal.SIGTERM, None)
    assert not capfd.readouterr().err


def test_a_closed_stderr_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any) -> int:
        raise BrokenPipeError

    signals = StopSignals(tells=True)
    signals.at_once = False
    monkeypatch.setattr(os, "write", write)
    signals._on_signal(signal.SIGTERM, None)
    assert signals.asked == signal.SIGTERM


def test_hangups_stay_ignored_after_nohup(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        signals = StopSignals()
        signals.install()
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
        assert signal.getsignal(signal.SIGTERM) == signals._on_signal
        signals.restore()
        assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    "blows",
    [
        {0: Blow(signal.SIGTERM, "on_train_batch_end", 4)},
        {1: Blow(signal.SIGTERM, "on_train_batch_end", 4)},
        {0: Blow(signal.SIGINT, "on_fetch_start", 4), 1: Blow(signal.SIGINT, "on_train_batch_end", 3)},
        {0: Blow(signal.SIGUSR1, "on_validation_batch_end", 2)},
        {1: Blow(signal.SIGHUP, "on_validation_batch_end", 2)},
    ],
    ids=["first", "other", "both, apart", "first, validating", "other, validating"],
)
def test_ranks_stop_together_whichever_got_the_signal(blows: dict[int, Blow], tmp_path: Path, whole: Callable) -> None:
    number = next(iter(blows.values())).what
    statuses = start_ranks(tmp_path / "run", RANKS, blows)
    assert statuses == [128 + number, 128 + number], said(tmp_path / "run") + said(tmp_path / "run", 1)
    assert start_ranks(tmp_path / "run", RANKS) == [0, 0]
    assert_same(leavings(tmp_path / "run"), whole(RANKS, 2))


@pytest.mark.parametrize("rank", [0, 1])
def test_when_a_rank_is_killed_the_other_names_it_and_ends(rank: int, tmp_path: Path, whole: Callable) -> None:
    statuses = start_ranks(tmp_path / "run", RANKS, {rank: Blow(signal.SIGKILL, "on_train_batch_end", 6)}, patience=30)
    assert statuses[rank] == -signal.SIGKILL
    assert statuses[1 - rank] not in (0, -signal.SIGKILL)
    told = said(tmp_path / "run", 1 - rank).strip().splitlines()[-1]
    assert f"rank {rank} (process " in told
    assert "is gone, and training cannot go on without" in told
    assert told.endswith(f"go on with --ckpt_path {tmp_path}/run/checkpoints/last.ckpt")
    assert start_ranks(tmp_path / "run", RANKS) == [0, 0]
    assert_same(leavings(tmp_path / "run"), whole(RANKS, 2))


def test_ranks_draw_different_noise_and_the_first_draws_that_of_one_process(whole: Callable) -> None:
    first, other = whole(RANKS, 2)["last"]["gan"]["rng"]
    for kind in ("python", "numpy", "torch"):
        assert str(first[kind]) != str(other[kind])


def test_what_is_struck_at_is_called(tmp_path: Path) -> None:
    """A hook that is misspelt would make every test above pass."""
    for hook in HOOKS:
        assert start(tmp_path / hook, PLAN, Blow(signal.SIGKILL, hook, 1)) == -signal.SIGKILL
