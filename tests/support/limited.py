"""A toy GAN that runs out of memory where it is told to, for the tests of the batch-size finder."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader

from support.toy import ToyGAN, toy_data
from univnet.gan.tuner.tuner import Tuner


def cuda_error() -> BaseException:
    return torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


class Limited(ToyGAN):
    """Raises ``error()`` in the loss of the discriminator, its last forward pass, at more than ``limit`` examples.

    Writes every micro-batch to ``log``: trials run in processes of their own.
    """

    def __init__(
        self,
        limit: int = 10**9,
        examples: int = 1000,
        drop_last: bool = False,
        error: Callable[[], BaseException] = cuda_error,
        log: Path | None = None,
        batch_size: int | None = 4,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.limit, self.examples, self.drop_last, self.error, self.log_file = limit, examples, drop_last, error, log
        if batch_size is not None:
            self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader:
        size = getattr(self, "batch_size", 0) or self.hparams["batch_size"]
        return DataLoader(toy_data(self.examples), batch_size=size, drop_last=self.drop_last)

    def note(self, *what: Any) -> None:
        if self.log_file is not None:
            with self.log_file.open("a") as file:
                print(os.getpid(), *what, file=file)

    def discriminator_loss(self, batch: Any, fake: Any) -> Any:
        with_state = sum(bool(player.optimizer.state) for player in self.updates.values() if player.optimizer)
        with_grad = sum(any(p.grad is not None for p in net.parameters()) for net in self.children())
        self.note(len(fake), self.trainer.current_epoch, with_state, with_grad)
        if len(fake) > self.limit:
            raise self.error()
        return super().discriminator_loss(batch, fake)


class LimitedData(LightningDataModule):
    """The data alone; ``hyperparameter`` keeps the batch size among the hyperparameters instead of an attribute."""

    def __init__(
        self, batch_size: int = 4, examples: int = 1000, hyperparameter: bool = False, logger: bool = True
    ) -> None:
        super().__init__()
        self.examples, self.setups = examples, 0
        if hyperparameter:
            self.save_hyperparameters("batch_size", logger=logger)
        else:
            self.batch_size = batch_size

    def setup(self, stage: str) -> None:
        self.setups += 1

    def train_dataloader(self) -> DataLoader:
        size = (self.hparams or vars(self))["batch_size"]
        return DataLoader(toy_data(self.examples), batch_size=size)


def noted(path: Path) -> list[list[tuple[int, ...]]]:
    """Return what ``Limited`` wrote, a list for each process: examples, epoch, optimizers and networks (see there)."""
    lines = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return [[line[1:] for line in lines if line[0] == process] for process in dict.fromkeys(line[0] for line in lines)]


def sizes(tuner: Tuner) -> list[int]:
    assert tuner.batch_size_search is not None
    return [each.size for each in tuner.batch_size_search.trials]
