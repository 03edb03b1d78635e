"""Train a ToyGAN on two gloo ranks, for test_ddp.py: ``python ddp_run.py FOLDER K_GENERATOR K_DISCRIMINATOR HOW``.

HOW is ``count`` (a communication hook counts all-reduces), ``name`` (``strategy="ddp"`` as a user writes it),
``shared`` (so, a GAN whose players share a discriminator forward) or ``resume`` (stop inside open windows, then resume
from the checkpoint written there).
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from support.toy import SaveAt, SharedToyGAN, ToyGAN, quiet_trainer, toy_data, weights
from univnet.data import EpochSampler, ResumableDataLoader
from univnet.gan import ExponentialMovingAverage, Updates

calls: Counter[int] = Counter()


def counting_hook(state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    calls[bucket.index()] += 1
    return allreduce_hook(state, bucket)


class Rank(EpochSampler):
    """This rank's half of each batch of 2 × 4 examples."""

    def __init__(self, data: Any, rank: int) -> None:
        super().__init__(data, 2, rank, shuffle=False)

    def __iter__(self) -> Any:
        skip, self.skip = self.skip, 0
        return iter([8 * batch + 4 * self.rank + i for batch in range(10) for i in range(4)][skip:])


class Distributed(ToyGAN):
    def train_dataloader(self) -> ResumableDataLoader:
        return ResumableDataLoader(toy_data(80), 4, Rank(toy_data(80), self.global_rank))


class DistributedShared(SharedToyGAN, Distributed):
    pass


class CountReduces(Callback):
    def on_train_start(self, trainer: Any, *args: Any) -> None:
        trainer.strategy.model.register_comm_hook(None, counting_hook)  # Lightning registers hooks on CUDA alone


def train(folder: Path, strategy: Any, gan: ToyGAN, ckpt_path: Path | None = None, **options: Any) -> Any:
    trainer = quiet_trainer(
        folder, devices=2, strategy=strategy, use_distributed_sampler=False, max_epochs=2, **options
    )
    trainer.fit(gan, ckpt_path=ckpt_path, weights_only=True)
    return trainer


def main(folder: Path, k_generator: int, k_discriminator: int, how: str) -> None:
    settings = Updates(k_generator, clip_norm=1.0), Updates(k_discriminator)
    kind = DistributedShared if how == "shared" else Distributed
    gan, average = kind(*settings), ExponentialMovingAverage(0.9)
    if how == "count":
        tiny = DDPStrategy(process_group_backend="gloo", bucket_cap_mb=1e-4)
        trainer = train(folder, tiny, gan, callbacks=[CountReduces()])
    elif how in ("name", "shared"):
        trainer = train(folder, "ddp", gan, callbacks=[average])
    else:  # a second run resumes from inside the first one's open windows
        train(folder, "ddp", Distributed(*settings), callbacks=[SaveAt(folder / "open.ckpt", batch=14)])
        trainer = train(folder, "ddp", gan, ckpt_path=folder / "open.ckpt")
    windows = {name: player.steps for name, player in gan.updates.items()}
    result = {"weights": weights(gan), "calls": dict(calls), "windows": windows, "step": trainer.global_step}
    if average.n_averaged:
        result["average"] = average.averaged
    torch.save(result, folder / f"rank{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
