"""Test learning rates on two gloo ranks, for test_lr_range_test.py: ``python lr_find_ddp_run.py FOLDER``."""

import sys
from pathlib import Path
from typing import Any

import torch

from support.ddp_run import Distributed
from support.toy import quiet_trainer, weights
from univnet.gan import Tuner, Updates

OPTIONS: dict[str, Any] = {"num_training": 12, "min_lr": 1e-4, "max_lr": 30.0, "update_attr": False}


def main(folder: Path) -> None:
    gan = Distributed(Updates(2, clip_norm=1.0), Updates(3), optimizer="sgd")
    trainer = quiet_trainer(folder, devices=2, strategy="ddp", use_distributed_sampler=False, max_epochs=1)
    before = weights(gan)
    curves = {}
    for optimizer in ("joint", "both"):
        found = Tuner(trainer).lr_find(gan, optimizer=optimizer, **OPTIONS)
        curves[optimizer] = {name: (curve.lr, curve.raw, curve.ended) for name, curve in found.curves.items()}
    untouched = torch.equal(before, weights(gan))
    trainer.fit(gan)
    result = {"curves": curves, "untouched": untouched, "weights": weights(gan)}
    torch.save(result, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
