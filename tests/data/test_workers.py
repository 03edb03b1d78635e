"""A worker that dies is told of where a batch is waited for, and nowhere else."""

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest
import torch
from torch.utils.data import DataLoader, Dataset
from torch.utils.data._utils import signal_handling

from univnet.data import ResumableDataLoader
from univnet.data.workers import batches_of


class Pids(Dataset):
    """Items that are the process that made them."""

    def __len__(self) -> int:
        return 100

    def __getitem__(self, index: int) -> int:
        return os.getpid()


@pytest.mark.parametrize("first", [False, True], ids=["", "after a loader of torch's"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_death_is_told_at_the_next_batch(number: signal.Signals, first: bool) -> None:
    if first:
        assert len(list(DataLoader(Pids(), batch_size=50, num_workers=1))) == 2
    batches = iter(ResumableDataLoader(Pids(), batch_size=2, num_workers=1))
    worker = int(next(batches)[0])
    assert worker != os.getpid()
    os.kill(worker, number)
    time.sleep(0.3)  # in which torch's handler would raise, here or in the multiplication
    torch.ones(8, 8) @ torch.ones(8, 8)
    with pytest.raises(RuntimeError, match=r"DataLoader worker \(pid \d+\) is killed by signal"):
        list(batches)


def test_a_handler_that_was_there_is_still_called() -> None:
    seen = []
    before = signal.signal(signal.SIGCHLD, lambda *_: seen.append(1))
    try:
        assert len(list(ResumableDataLoader(Pids(), batch_size=50, num_workers=1))) == 2
        time.sleep(0.1)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert seen


@pytest.mark.parametrize("died", [True, False])
def test_a_connection_that_a_dead_worker_broke_is_its_death(died: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    handed_over = 0

    def look() -> None:
        if died and handed_over:
            raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")

    def batches() -> Iterator[int]:
        nonlocal handed_over
        yield 1
        handed_over = 1
        raise ConnectionResetError(104, "Connection reset by peer")

    monkeypatch.setattr(signal_handling, "_error_if_any_worker_fails", look)
    loader = batches_of(batches)
    assert next(loader) == 1
    with pytest.raises(RuntimeError if died else ConnectionResetError, match="pid 7" if died else "reset by peer"):
        next(loader)


@pytest.mark.parametrize("waiting", [True, False])
def test_a_signal_to_the_whole_group_is_obeyed_before_a_worker_s_death_is_told(waiting: bool) -> None:
    """The worker gets it first, and this process a moment later."""

    def stop(*_: object) -> None:
        raise SystemExit(143)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        batches = iter(ResumableDataLoader(Pids(), batch_size=2, num_workers=1))
        os.kill(int(next(batches)[0]), signal.SIGKILL)
        if not waiting:
            time.sleep(0.2)
        threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with pytest.raises(SystemExit):
            list(batches)
    finally:
        signal.signal(signal.SIGTERM, before)
