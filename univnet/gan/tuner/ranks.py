"""Let each rank of a distributed run train by itself, and exchange results afterwards.

If a rank ran out of memory within a step, the others would wait for its gradients for ever. So the ranks do not
communicate during a trial; they exchange results between trials.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from univnet.gan.lightning_internals import hidden_group, starts_ranks_per_fit
from univnet.gan.rng import preserved


@contextmanager
def alone(trainer: Trainer) -> Iterator[None]:
    """Let ``trainer`` train on this rank's share of the data without the other ranks.

    The process group is hidden inside this context, so that nothing can wait for another rank.
    """
    if not isinstance(trainer.strategy, DDPStrategy):
        yield
        return
    with hidden_group(trainer.strategy):
        yield


def on_all_ranks(trainer: Trainer, function: Callable[[], Any]) -> Any:
    """Return ``function()``, started on every rank that ``trainer`` trains on, with a process group.

    Raises:
        MisconfigurationException: if the ranks are processes that only last for one ``fit``.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return function()
    if starts_ranks_per_fit(strategy):
        raise MisconfigurationException(
            "strategies that spawn or fork their ranks would lose the result: use strategy=ddp"
        )

    def run() -> Any:
        with preserved():  # where a seed is set, Lightning seeds again
            strategy.setup_environment()
        return function()

    return run() if strategy.launcher is None else strategy.launcher.launch(run, trainer=trainer)


def of_all_ranks(trainer: Trainer, mine: Any) -> list[Any]:
    """Return every rank's ``mine``, in the order of ranks; all ranks must call it."""
    if not isinstance(trainer.strategy, DDPStrategy):
        return [mine]
    everyone: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(everyone, mine)
    return everyone
