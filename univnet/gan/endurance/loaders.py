"""Resuming within an epoch with loaders that keep no place: PyTorch's own ``DataLoader``."""

import logging
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch.utils.data import BatchSampler, DataLoader, IterableDataset, RandomSampler, Sampler, SequentialSampler
from torch.utils.data.distributed import DistributedSampler

from univnet.gan.lightning_internals import begin_loading_again, training_loaders

log = logging.getLogger(__name__)


def fast_forward(trainer: Trainer, epoch: int, batches: int, epoch_end: bool) -> None:
    """Have plain loaders go on after ``batches`` of ``epoch``, where Lightning would begin the epoch again.

    With ``epoch_end`` due these are all, and Lightning itself begins the next epoch.

    Nothing is loaded for what is skipped. A loader that shuffles needs a generator with a seed of its own, which is
    taken to have had nothing else to draw; of one without, and of an iterable dataset, a warning says that it begins
    the epoch again.
    """
    if not (epoch or batches):
        return
    epoch, batches = (epoch + 1, 0) if epoch_end else (epoch, batches)
    again = False
    for loader in training_loaders(trainer).flattened:
        if hasattr(loader, "state_dict"):
            continue
        if _can_skip(loader):
            if isinstance(loader.sampler, RandomSampler):
                _replay(loader, epoch)
            loader.batch_sampler.sampler = _Skipping(loader.batch_sampler.sampler, batches * loader.batch_size)
            again = not epoch_end
        elif batches:
            log.warning(
                "%s keeps no place and shuffles without a seed of its own, or is no map-style DataLoader: this epoch "
                "begins again. Give it generator=torch.Generator().manual_seed(1), or use "
                "univnet.data.ResumableDataLoader",
                type(loader).__name__,
            )
    if again:
        begin_loading_again(trainer)


def _can_skip(loader: Any) -> bool:
    if type(loader) is not DataLoader or isinstance(loader.dataset, IterableDataset):
        return False
    sampler = loader.sampler
    seeded = isinstance(sampler, RandomSampler) and sampler.generator is not None
    ordered = isinstance(sampler, SequentialSampler | DistributedSampler)
    return type(loader.batch_sampler) is BatchSampler and (seeded or ordered)


def _replay(loader: Any, epochs: int) -> None:
    """Draw what so many epochs have drawn from the sampler's generator, and the loader's where it is the same one."""
    generator = loader.sampler.generator
    generator.manual_seed(generator.initial_seed())
    for _ in range(epochs):
        if loader.generator is generator:
            torch.empty((), dtype=torch.int64).random_(generator=generator)  # the seed of the workers
        # Workers are asked for more than there is, which draws once more; Lightning alone stops at the length.
        for _ in islice(loader.sampler, None if loader.num_workers else len(loader.sampler)):
            pass


class _Skipping(Sampler):
    """Leaves out the first items, once."""

    def __init__(self, sampler: Any, skip: int) -> None:
        self._sampler, self._skip = sampler, skip

    def __iter__(self) -> Iterator[Any]:
        skip, self._skip = self._skip, 0
        return islice(iter(self._sampler), skip, None)

    def __len__(self) -> int:
        return len(self._sampler)

    def __getattr__(self, name: str) -> Any:  # Lightning tells it the epoch
        return getattr(vars(self)["_sampler"], name)
