"""What the ranks of a run tell each other about stopping, and what is told of one that has died."""

import os
import socket
import time
from contextlib import suppress
from typing import Any

import torch
import torch.distributed as dist

from univnet.common.processes import is_running

_PATIENCE = 2.0  # seconds in which a process that is being killed is seen to be gone
_WORDS = ("connection", "peer", "gloo", "nccl", "timed out", "timeout", "socket", "broken pipe", "store")


class RankLostError(ConnectionError):
    """Another rank of the run has died, so this one cannot go on."""


def join_restarted(device: torch.device) -> None:
    """Meet the other ranks, where ``torchrun`` has restarted them in a way in which PyTorch would wait for ever.

    PyTorch's ranks look for each other in a store that outlives them, where they find the addresses of the dead
    (https://github.com/pytorch/pytorch/issues/135712). On one machine they can look elsewhere in it.

    Raises:
        RankLostError: on several machines; names the setting with which ``torchrun`` starts a store with each restart.
    """
    restarts = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    if restarts == "0" or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True" or dist.is_initialized():
        return
    size = int(os.environ["WORLD_SIZE"])
    if os.environ.get("LOCAL_WORLD_SIZE") != str(size):
        raise RankLostError(
            "torchrun has restarted this rank on several machines, where it would wait for ever: start torchrun with "
            "TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in its environment"
        )
    store = dist.TCPStore(os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"]), size, is_master=False)
    dist.init_process_group(
        "nccl" if device.type == "cuda" else "gloo",
        store=dist.PrefixStore(f"restart{restarts}", store),
        rank=int(os.environ["RANK"]),
        world_size=size,
    )


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
        return [rank for rank, (host, process) in enumerate(self._who) if host == here and not is_running(process)]
