"""Print the peak memory, in bytes, that training a wide ToyGAN with K micro-batches a window adds: ``… FOLDER K``."""

import re
import sys
from pathlib import Path

import torch
from torch import nn

from support.toy import ToyGAN, quiet_trainer, toy_loader
from univnet.gan import Updates


def memory(which: str) -> int:
    """Return this process's resident memory, in bytes: ``VmRSS`` now, ``VmHWM`` at its peak."""
    return 1024 * int(re.search(rf"{which}:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class Wide(ToyGAN):
    """Activations of some 150 MiB against 2 MiB of parameters."""

    def __init__(self, k: int) -> None:
        super().__init__(Updates(k), Updates(k), dtype=torch.float32)
        hidden = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.Tanh())]
        self.generator = nn.Sequential(nn.Linear(3, 256), *hidden, nn.Linear(256, 2))


folder, k = sys.argv[1], int(sys.argv[2])
before = memory("VmRSS")  # imports may have had a peak of their own, as when Python compiles them first
loader = toy_loader(8 * 16384, batch_size=16384, dtype=torch.float32)
quiet_trainer(folder, max_epochs=2).fit(Wide(k), loader)
print(memory("VmHWM") - before)
