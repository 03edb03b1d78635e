"""Train each of the nine GANs on two gloo ranks: ``python gans_ddp_run.py FOLDER``."""

import sys
from pathlib import Path
from typing import Any

import torch

from support.gans import GANS, examples
from support.toy import quiet_trainer, weights
from univnet.data import EpochSampler, ResumableDataLoader


class Rank(EpochSampler):
    """This rank's half of each batch of 2 × 4 examples."""

    def __init__(self, rank: int) -> None:
        super().__init__(examples(), 2, rank, shuffle=False)

    def __iter__(self) -> Any:
        skip, self.skip = self.skip, 0
        return iter([8 * batch + 4 * self.rank + i for batch in range(12) for i in range(4)][skip:])


def main(folder: Path) -> None:
    for name, kind in GANS.items():
        gan = kind(2)
        trainer = quiet_trainer(folder, devices=2, strategy="ddp", use_distributed_sampler=False, max_epochs=2)
        rank = int(trainer.global_rank)
        trainer.fit(gan, ResumableDataLoader(examples(), 4, Rank(rank)))
        torch.save(weights(gan), folder / f"{name}{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
