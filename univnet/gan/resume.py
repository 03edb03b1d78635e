"""What a checkpoint holds so that stopping at any micro-batch and resuming equals not stopping, bit for bit.

Lightning keeps weights, optimizers, schedulers and its own counters; the loader keeps its place. The rest is here:
the players with their open windows, the random number generators, and what was still due when the file was written.
"""

import logging
from collections.abc import Mapping
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from univnet.gan.rng import rng_state, set_rng_state
from univnet.gan.schedules import Schedules
from univnet.gan.updates import Player

log = logging.getLogger(__name__)


def capture(trainer: Trainer, players: Mapping[str, Player], schedules: Schedules) -> dict[str, Any]:
    """Return the state to save, the same on every rank; all ranks must call it. Safe for ``weights_only`` loading."""
    states = {name: player.state_dict() for name, player in players.items()}
    random = [rng_state()]
    if trainer.world_size > 1 and dist.is_initialized():

        def mean_over_ranks(grad: Tensor) -> Any:
            return trainer.strategy.reduce(grad.clone(), reduce_op="mean")

        for state in states.values():  # by linearity, the ranks' mean serves each of them
            state["grads"] = apply_to_collection(state["grads"], Tensor, mean_over_ranks)
        random *= trainer.world_size
        dist.all_gather_object(random, rng_state())
    schedules.see(trainer)
    return {"players": states, "rng": random, "watched": schedules.seen, "due": _due(trainer)}


def restore(trainer: Trainer, players: Mapping[str, Player], schedules: Schedules, state: Mapping[str, Any]) -> None:
    """Continue from what :func:`capture` returned; the players are bound to their optimizers by now."""
    for name, player in players.items():
        player.load_state_dict(state["players"][name])
    schedules.seen = dict(state["watched"])
    if len(state["rng"]) == trainer.world_size:
        set_rng_state(state["rng"][trainer.global_rank])
    else:
        log.warning("random numbers differ from the run resumed: it had %d processes", len(state["rng"]))
    _finish_micro_batch(trainer, schedules, **state["due"])


def _due(trainer: Trainer) -> dict[str, bool]:
    """Return what the trainer has yet to do after the micro-batch at whose end it is, if it is at one's end."""
    loop = trainer.fit_loop.epoch_loop
    done = loop.batch_progress.state_dict()["current"]
    ending = done["processed"] > done["completed"] and trainer.fit_loop._data_fetcher is not None
    return {
        "validation": ending and loop._should_check_val_fx(trainer.fit_loop._data_fetcher),  # type: ignore[arg-type]
        "epoch_end": ending and trainer.is_last_batch,
    }


def _finish_micro_batch(trainer: Trainer, schedules: Schedules, validation: bool, epoch_end: bool) -> None:
    """Do what was due when the checkpoint was written; Lightning forgets it."""
    loop = trainer.fit_loop.epoch_loop
    loop.val_loop.restarting = False
    if not epoch_end:
        if validation:  # pretend that it was interrupted, which Lightning mends
            loop.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION
        return
    epochs = trainer.fit_loop.epoch_progress.current
    epochs.completed -= 1  # what follows belongs to the epoch that Lightning has just put behind it
    if validation:
        trainer.validating = True
        loop.val_loop.run()
        trainer.training = True
    schedules.after_epoch(trainer, plateau=True)
    epochs.completed += 1
