"""What an update of both players costs as the work grows: ``python docs/cost.py`` draws docs/cost.png.

UnivNet on one CPU thread in float32, each point in a process of its own: first the memory of two updates, then the
median time of three more with freed memory kept. One thing is varied at a time, from CENTRE.
"""

import json
import os
import statistics
import subprocess
import sys
import time

import matplotlib
import numpy as np
import torch

from univnet import Generator, UnivNet
from univnet.benchmarks import measure
from univnet.benchmarks.contests import our_step
from univnet.runtime import keep_freed_memory

matplotlib.use("agg")
from matplotlib import pyplot as plt

CENTRE = {"segment": 8192, "batch": 4, "channels": 16, "accumulate": 1}
VARIED = {
    "segment": [4096, 8192, 16384, 32768],
    "batch": [1, 2, 4, 8, 16],
    "channels": [8, 16, 32, 48],
    "accumulate": [1, 2, 4, 8],
}
LABELS = {
    "segment": "samples an example",
    "batch": "examples a micro-batch",
    "channels": "channels of the generator",
    "accumulate": "micro-batches an update (K)",
}


def one(segment: int, batch: int, channels: int, accumulate: int) -> dict[str, float]:
    """Measure one point: seconds, and bytes at the peak above model and optimizers."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    module = UnivNet(generator=Generator(channels=channels))
    generator, discriminator = (configured["optimizer"] for configured in module.configure_optimizers())
    micro_batch = {"audio": 0.1 * torch.randn(batch, 1, segment), "mel": torch.randn(batch, 100, segment // 256)}

    def update() -> None:
        our_step(module, micro_batch, (generator, discriminator), accumulate=accumulate)

    measured = measure.peak_memory(update, "cpu")
    assert measured is not None, "this takes Linux"
    peak, stays = measured
    keep_freed_memory()
    update()
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        update()
        seconds.append(time.perf_counter() - begun)
    return {"seconds": statistics.median(seconds), "bytes": peak - stays}


def main() -> None:
    """Measure all points, print them with the lines that fit them, and draw."""
    figure, axes = plt.subplots(2, len(VARIED), figsize=(14, 6), layout="constrained", sharex="col")
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed goes back to the system
    for column, (name, values) in enumerate(VARIED.items()):
        points = []
        for value in values:
            arguments = [str(number) for number in (CENTRE | {name: value}).values()]
            ran = subprocess.run(
                [sys.executable, __file__, *arguments], env=environment, check=True, capture_output=True
            )
            points.append(json.loads(ran.stdout))
            print(name, value, points[-1], flush=True)
        for row, (key, unit, scale) in enumerate(
            (("seconds", "s", 1.0), ("bytes", "MB above model and optimizers", 1e-6))
        ):
            y = np.array([point[key] for point in points]) * scale
            slope, constant = np.polyfit(values, y, 1)
            worst = np.abs(np.polyval([slope, constant], values) / y - 1).max()
            print(f"  {key}: {constant:.4g} + {slope:.4g} · {name}, off by {worst:.0%} at most", flush=True)
            axes[row, column].plot(values, y, "o")
            axes[row, column].plot([0, values[-1]], [constant, constant + slope * values[-1]], "-", lw=1)
            axes[row, column].set_ylim(0)
            axes[row, column].set_title(f"{constant:.3g} + {slope:.3g} · x", fontsize=9)
            if not column:
                axes[row, column].set_ylabel(unit)
        axes[1, column].set_xlabel(LABELS[name])
    figure.savefig("docs/cost.png", dpi=110)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(one(*map(int, sys.argv[1:]))))
    else:
        main()
