"""Print the peak memory, in bytes, that training a wide ToyGAN with K micro-batches a window adds: ``… FOLDER K``."""

import re
import sys
from pathlib import Path

import torch
from torch import nn

from support.toy import ToyGAN, quiet_trainer, toy_loader
from univnet.gan import Updates


def peak() -> int:
    """Return this process's high-water mark of resident memory, in bytes."""
    return 1024 * int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1])


class Wide(ToyGAN):
    """Activations of some 150 MiB against 2 MiB of parameters."""

    def __init__(self, k: int) -> None:
        super().__init__(Updates(k), Updates(k), dtype=torch.float32)
        hidden = [layer for _ in range(4) for layer in (nn.Linear(256, 256), nn.Tanh())]
        self.generator = nn.Sequential(nn.Linear(3, 256), *hidden, nn.Linear(256, 2))


folder, k = sys.argv[1], int(sys.argv[2])
before = peak()
loader = toy_loader(8 * 16384, batch_size=16384, dtype=torch.float32)
quiet_trainer(folder, max_epochs=2).fit(Wide(k), loader)
print(peak() - before)
