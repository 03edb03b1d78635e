"""Print, as JSON, the peak memory of work that keeps 64 MiB each time and lets go of 128 MiB."""

import json

import torch

from univnet.benchmarks import measure

kept = []


def work() -> None:
    kept.append(torch.ones(2**24))
    torch.ones(2**25).sum()


print(json.dumps(measure.peak_memory(work, "cpu")))
