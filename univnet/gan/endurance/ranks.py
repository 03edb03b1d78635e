"""What the ranks of a run tell each other about stopping, and what is told of one that has died."""

import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

_PATIENCE = 2.0  # seconds in which a process that is being killed is seen to be gone
_WORDS = ("connection", "peer", "gloo", "nccl", "timed out", "timeout", "socket", "broken pipe", "store")


class RankLostError(ConnectionError):
    """Another rank of the run has died, so this one cannot go on."""


class Ranks:
    """The ranks of a distributed run: a small group of their own, on the CPU, beside that of training.

    All ranks make one at the same time.
    """

    def __init__(self) -> None:
        self._group = dist.new_group(backend="gloo")
        here = socket.gethostname(), os.getpid()
        self._who: list[Any] = [here] * dist.get_world_size()
        dist.all_gather_object(self._who, here, group=self._group)
        self._flag = torch.zeros((), dtype=torch.int32)
        self._work: Any = None

    def ask(self, number: int) -> None:
        """Begin to tell the others ``number``, without waiting for them; all ranks ask once a micro-batch."""
        self.answer()
        self._flag.fill_(number)
        self._work = dist.all_reduce(self._flag, dist.ReduceOp.MAX, group=self._group, async_op=True)

    def answer(self) -> int:
        """Return the greatest number that any rank asked with: the same on all of them."""
        if self._work is not None:
            self._work.wait()
            self._work = None
        return int(self._flag)

    def pass_on(self, number: int) -> None:
        """Send a signal to the other ranks on this machine."""
        for rank, (host, process) in enumerate(self._who):
            if host == socket.gethostname() and rank != dist.get_rank():
                with suppress(ProcessLookupError):
                    os.kill(process, number)

    def lost(self, error: BaseException) -> str | None:
        """Return which ranks have died, as far as can be seen from here, if ``error`` is of the kind that follows."""
        told = str(error).lower()
        if not isinstance(error, RuntimeError | OSError) or not any(word in told for word in _WORDS):
            return None
        until = time.monotonic() + _PATIENCE
        while not (gone := self._gone()) and time.monotonic() < until:
            time.sleep(0.05)
        if gone:
            names = [f"rank {rank} (process {self._who[rank][1]} on {self._who[rank][0]})" for rank in gone]
            return f"{' and '.join(names)} {'is' if len(gone) == 1 else 'are'} gone"
        elsewhere = sorted({host for host, _ in self._who if host != socket.gethostname()})
        return f"the connection to a rank on {' or '.join(elsewhere)} is lost" if elsewhere else None

    def _gone(self) -> list[int]:
        here = socket.gethostname()
        return [rank for rank, (host, process) in enumerate(self._who) if host == here and not _runs(process)]


def _runs(process: int) -> bool:
    """Whether a process of this machine runs: not one that is dead and only waits for its parent to take note."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (OSError, IndexError):
        return True
