"""A data loader that resumes in the middle of an epoch, for any map-style dataset."""

import warnings
from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from univnet.data.workers import batches_of


class EpochSampler(DistributedSampler):
    """Order of an epoch: a permutation that depends on seed and epoch alone, shared out evenly over the ranks.

    A ``DistributedSampler``, so that Lightning leaves it in place on several devices.

    Args:
        dataset: anything with a length.
        num_replicas: number of ranks.
        rank: of this process.
        shuffle: False keeps the dataset's order.
        seed: the same on every rank.
        drop_last: leave out the items that do not share out evenly, instead of giving some twice.
        draws: yield draw numbers, epoch · len(dataset) + index, for datasets that differ from epoch to epoch,
            instead of indices.
    """

    def __init__(
        self,
        dataset: Dataset,
        num_replicas: int = 1,
        rank: int = 0,
        shuffle: bool = True,
        seed: int = 1234,
        drop_last: bool = False,
        draws: bool = False,
    ) -> None:
        super().__init__(dataset, num_replicas, rank, shuffle, seed, drop_last)
        self.draws = draws
        self.skip = 0  # items that the next iterator leaves out; it sets this back to 0

    def __iter__(self) -> Iterator[int]:
        skip, self.skip = self.skip, 0
        count: int = len(self.dataset)  # type: ignore[arg-type]
        order = torch.arange(count)
        if self.shuffle:
            order = torch.randperm(count, generator=torch.Generator().manual_seed(self.seed + self.epoch))
        start = min(self.rank + skip * self.num_replicas, self.total_size)
        places = torch.arange(start, self.total_size, self.num_replicas)
        chosen = order[places % count] + (self.epoch * count if self.draws else 0)
        # Some at a time: an epoch of hundreds of hours has millions, and a list of them would take a second and 100 MB.
        return (index for some in chosen.split(4096) for index in some.tolist())


class ResumableDataLoader(DataLoader):
    """A ``DataLoader`` whose place in the epoch is saved and restored (Lightning does so with every checkpoint).

    ``state_dict`` holds the epoch and the number of batches handed out in it, whatever workers have prefetched.
    After ``load_state_dict`` the next iterator goes on there without loading what came before; a place at the end
    of an epoch means the next epoch's start. ``len`` stays a whole epoch's, as Lightning counts.

    An iterator starts its workers at the first batch, in the epoch that the sampler has by then: Lightning makes
    its first iterator before it sets the epoch. Exhausting an iterator moves the sampler on to the next epoch;
    ``sampler.set_epoch`` overrides that. No random number is taken from torch's global generator: workers are
    seeded by the sampler's seed, the epoch and the rank. Items should depend on their index alone; randomness
    drawn from a worker's own generator is not restored.

    Args:
        dataset: any map-style dataset.
        batch_size: items in a batch.
        sampler: default: ``EpochSampler(dataset, shuffle=shuffle)``. With a sampler of another class (Lightning puts
            one in for ``overfit_batches``) this is a plain DataLoader that always starts at the top.
        shuffle: for the default sampler.
        **options: as in ``torch.utils.data.DataLoader``, but no ``batch_sampler``.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int | None = 1,
        sampler: Any = None,
        shuffle: bool | None = None,
        **options: Any,
    ) -> None:
        if options.pop("batch_sampler", None) is not None:
            raise ValueError("ResumableDataLoader makes its batches itself: give it a sampler, not a batch_sampler.")
        if sampler is None:
            sampler = EpochSampler(dataset, shuffle=bool(shuffle))
        options["generator"] = options.get("generator") or torch.Generator()
        super().__init__(dataset, batch_size, sampler=sampler, **options)
        self._epoch = 0
        self._position = 0
        self._resuming = False  # between load_state_dict and the first batch after it

    def state_dict(self) -> dict[str, int]:
        """The epoch, the number of batches handed out in it, and of how many items it is an epoch."""
        items = len(self.dataset)  # type: ignore[arg-type]
        return {"epoch": self._epoch, "position": self._position, "items": items}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Make the next iterator go on where ``state`` was taken."""
        if not isinstance(self.sampler, EpochSampler):
            return
        items = len(self.dataset)  # type: ignore[arg-type]
        if (then := state.get("items", items)) != items:
            warnings.warn(
                f"The data set had {then} items when the checkpoint was written and has {items} now: the order of the "
                "batches is not what it would have been.",
                stacklevel=2,
            )
        self._epoch, self._position = state["epoch"], state["position"]
        if self._position >= len(self):
            self._epoch, self._position = self._epoch + 1, 0
        self.sampler.set_epoch(self._epoch)
        self._resuming = True

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        sampler = self.sampler
        if not isinstance(sampler, EpochSampler):
            yield from batches_of(super().__iter__)
            return
        if not (self._resuming and sampler.epoch == self._epoch):  # else: another epoch has been set since loading
            self._epoch, self._position = sampler.epoch, 0
        self._resuming = False
        sampler.skip = self._position * (self.batch_size or 1)
        self.generator.manual_seed(sampler.seed + self._epoch * sampler.num_replicas + sampler.rank)
        for batch in batches_of(super().__iter__):
            self._position += 1
            yield batch
        sampler.set_epoch(self._epoch + 1)
