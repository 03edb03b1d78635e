"""A worker that dies is told of where a batch is waited for, and nowhere else."""

import os
import signal
import time

import pytest
import torch
from torch.utils.data import DataLoader, Dataset

from univnet.data import ResumableDataLoader


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
