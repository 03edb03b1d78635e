"""Let each rank of a distributed run train by itself for a while, and compare notes afterwards.

A rank that runs out of memory within a step would leave the others waiting for its gradients. So no rank talks to
another during a trial; what they found is exchanged between trials, when all are well.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.utilities.exceptions import MisconfigurationException

_LOCAL: dict[str, Any] = {
    "_launcher": None,
    "setup_distributed": lambda: None,
    "configure_ddp": lambda: None,
    "reduce_boolean_decision": lambda decision, all=True: decision,
}


@contextmanager
def alone(trainer: Trainer) -> Iterator[None]:
    """Let ``trainer`` train on this rank's share of the data without the other ranks.

    The process group is hidden meanwhile, so that nobody can wait for them. Lightning's own reductions, barriers and
    broadcasts then do nothing.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        yield
        return
    before = {name: vars(strategy)[name] for name in _LOCAL if name in vars(strategy)}
    group, dist.GroupMember.WORLD = dist.GroupMember.WORLD, None
    vars(strategy).update(_LOCAL)
    try:
        yield
    finally:
        for name in _LOCAL:
            del vars(strategy)[name]
        vars(strategy).update(before)
        dist.GroupMember.WORLD = group


def on_all_ranks(trainer: Trainer, function: Callable[[], Any]) -> Any:
    """Return ``function()``, started on every rank that ``trainer`` trains on, with a process group to talk in.

    Raises:
        MisconfigurationException: the ranks are processes that last no longer than one ``fit``.
    """
    strategy = trainer.strategy
    if not isinstance(strategy, DDPStrategy):
        return function()
    launcher = strategy.launcher
    if isinstance(launcher, _MultiProcessingLauncher):
        raise MisconfigurationException(
            "strategies that spawn or fork their ranks lose what is set in them: use strategy=ddp"
        )

    def run() -> Any:
        strategy.setup_environment()
        return function()

    return run() if launcher is None else launcher.launch(run, trainer=trainer)


def of_all_ranks(trainer: Trainer, mine: Any) -> list[Any]:
    """Return what every rank gives, in the order of ranks; all must call it."""
    if not isinstance(trainer.strategy, DDPStrategy):
        return [mine]
    everyone: list[Any] = [None] * trainer.world_size
    dist.all_gather_object(everyone, mine)
    return everyone
