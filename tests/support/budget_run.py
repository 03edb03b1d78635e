"""Find a batch size within a budget, or train an epoch with one, for test_batch_size_budget.py.

``python budget_run.py find MIB`` prints the budget in bytes (what the process holds, and so many MiB), the sizes tried
that fitted, those that did not, and the size found; ``train SIZE`` trains an epoch and prints the most that the process
ever held, as the kernel counted it.
"""

import json
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from support.limited import Limited
from support.toy import quiet_trainer
from univnet.gan.tuner.memory import usage
from univnet.gan.tuner.tuner import Tuner


class Hungry(Limited):
    """Takes several MiB an example."""

    def __init__(self) -> None:
        super().__init__(examples=150, drop_last=True)
        self.wide = torch.ones(2**18, dtype=torch.float64)

    def generate(self, batch: Any) -> Any:
        fake = super().generate(batch)
        return fake + (fake[:, :1] * self.wide).tanh().mean(1, keepdim=True)


def find(more: int) -> dict[str, Any]:
    budget = usage(Path("/proc/self")).total + more * 2**20
    tuner = Tuner(quiet_trainer(tempfile.gettempdir()))
    tuner.scale_batch_size(Hungry(), mode="binsearch", init_val=16, memory_budget=budget)
    found = tuner.batch_size_search
    assert found is not None
    return {"budget": budget, "found": found.size, "largest": found.largest, "trials": found.to_dict()["trials"]}


def train(size: int) -> dict[str, Any]:
    gan = Hungry()
    gan.batch_size = size
    trainer = quiet_trainer(tempfile.gettempdir())
    trainer.fit(gan)
    # Not ru_maxrss, which also counts what the process that started this one held.
    peak = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert peak is not None
    return {"steps": trainer.global_step, "memory": int(peak[1]) * 1024}


if __name__ == "__main__":
    print(json.dumps({"find": find, "train": train}[sys.argv[1]](int(sys.argv[2]))))
