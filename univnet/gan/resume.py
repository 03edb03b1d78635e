"""What a checkpoint holds so that stopping at any moment and resuming equals not stopping, bit for bit.

Lightning keeps weights, optimizers and schedulers; the loader keeps its place. The rest is here: the players with their
open windows, the random number generators, and the position of the run, from which Lightning's own counters are
written anew.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch.distributed as dist
from lightning.pytorch import Trainer
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.optim import Optimizer

from univnet.gan.endurance.loaders import fast_forward
from univnet.gan.endurance.logs import mark, rewind
from univnet.gan.lightning_internals import set_loops, validation_is_due
from univnet.gan.rng import rng_state, set_apart, set_rng_state
from univnet.gan.schedules import Schedules
from univnet.gan.updates import Player

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Position:
    """Where a run stands: at the end of a micro-batch, whichever hook a checkpoint is written in.

    Attributes:
        epoch: epochs that are wholly behind.
        batches: micro-batches of the present epoch that are behind.
        total_batches: the same of the whole run.
        steps: generator updates.
        validation: a validation is due before the next micro-batch.
        epoch_end: what follows an epoch's last micro-batch is due: hooks, and schedulers that watch an epoch's metrics.
    """

    epoch: int = 0
    batches: int = 0
    total_batches: int = 0
    steps: int = 0
    validation: bool = False
    epoch_end: bool = False


class Progress:
    """Follows a run from hook to hook; knows its ``Position`` at any time between two training steps."""

    def __init__(self) -> None:
        self.resumed(Position())

    def resumed(self, position: Position) -> None:
        """Go on from a checkpoint's position."""
        self._last = position  # at the end of the last micro-batch
        self._untouched = True  # nothing has followed it yet
        self._epoch_ended = self._fetching = False
        self._numbers: dict[str, Any] | None = None  # the random numbers then, or when the next fetch began

    def stepped(self, trainer: Trainer) -> None:
        """A training step is done."""
        loop, epoch = trainer.fit_loop.epoch_loop, trainer.current_epoch
        batches, total = loop.batch_idx + 1, loop.total_batch_idx + 1
        self._last = Position(epoch, batches, total, trainer.global_step, epoch_end=trainer.is_last_batch)
        self._untouched = self._epoch_ended = self._fetching = False

    def micro_batch_ended(self, trainer: Trainer) -> None:
        """A micro-batch is wholly behind; what follows may draw random numbers."""
        self._untouched = False
        self._numbers = rng_state()

    def fetches(self) -> None:
        """The next micro-batch is about to be fetched, which may draw random numbers as well."""
        self._fetching, self._numbers = True, rng_state()

    def epoch_ended(self) -> None:
        """The epoch is wholly behind."""
        self._epoch_ended, self._fetching = True, False

    def position(self, trainer: Trainer) -> Position:
        """Return where ``trainer`` stands."""
        last = self._last
        if self._epoch_ended:
            return Position(last.epoch + 1, 0, last.total_batches, last.steps)
        return last if self._untouched else replace(last, validation=validation_is_due(trainer))

    def random_numbers(self, trainer: Trainer) -> dict[str, Any]:
        """Return the state of the random number generators there: a validation or a fetch begun is begun again."""
        again = self._fetching or (trainer.validating and self.position(trainer).validation)
        return self._numbers if again and self._numbers is not None else rng_state()


def capture(
    trainer: Trainer, players: Mapping[str, Player], schedules: Schedules, progress: Progress
) -> dict[str, Any]:
    """Return the state to save, the same on every rank; all ranks must call it. Safe for ``weights_only`` loading."""
    states = {name: player.state_dict() for name, player in players.items()}
    random = [progress.random_numbers(trainer)]
    if trainer.world_size > 1 and dist.is_initialized():

        def mean_over_ranks(grad: Tensor) -> Any:
            return trainer.strategy.reduce(grad.clone(), reduce_op="mean")

        for state in states.values():  # by linearity, the ranks' mean serves each of them
            state["grads"] = apply_to_collection(state["grads"], Tensor, mean_over_ranks)
        random *= trainer.world_size
        dist.all_gather_object(random, random[0])
    schedules.see(trainer)
    position = asdict(progress.position(trainer))
    logs = mark(trainer.loggers) if trainer.is_global_zero else {}
    return {"players": states, "rng": random, "watched": schedules.seen, "position": position, "logs": logs}


def check_complete(checkpoint: Mapping[str, Any], players: Mapping[str, Player]) -> None:
    """Check that ``checkpoint`` holds all that training goes on with.

    Raises:
        ValueError: naming everything that it lacks.
    """
    gan, lacks = checkpoint.get("gan", {}), []
    if len(checkpoint.get("optimizer_states", ())) < len(players):
        lacks.append("the state of both optimizers")
    if "fit_loop" not in checkpoint.get("loops", {}):
        lacks.append("the place in the run")
    if gan or checkpoint.get("global_step") != 0:  # before the first micro-batch there is nothing of these
        lacks += [f"the {name}'s counters and window" for name in players if name not in gan.get("players", {})]
        lacks += [what for part, what in _PARTS.items() if part not in gan]
    if lacks:
        raise ValueError(
            f"training cannot go on from this checkpoint, which lacks {', '.join(lacks)}: it holds weights alone or is "
            f"not of this package; give one that training has written, or begin a new run from its weights"
        )


def check_optimizers(
    state: Mapping[str, Any], optimizers: Sequence[Optimizer], players: Mapping[str, Sequence[Optimizer]]
) -> None:
    """Check that each player's optimizers can go on from the states that are about to be loaded into them.

    Args:
        state: a checkpoint's ``"gan"``, with the ``param_groups`` of the optimizers' states as ``"groups"``.
        optimizers: all, in the order of these states.
        players: each player's.

    Raises:
        ValueError: naming each that is of another class than the one whose state was saved.
    """
    wrong = []
    if len(state["groups"]) != len(optimizers):
        wrong.append(f"it has the states of {len(state['groups'])} and this run has {len(optimizers)}")
    for name, own in players.items():
        ours = ", ".join(type(optimizer).__name__ for optimizer in own)
        theirs = state["players"][name].get("optimizer")  # older checkpoints do not say
        saved = [groups for each, groups in zip(optimizers, state["groups"], strict=False) if each in own]
        fits = all(o.defaults.keys() <= groups[0].keys() | _LATER for o, groups in zip(own, saved, strict=False))
        if theirs not in (ours, None) or not fits:
            wrong.append(f"the {name}'s is of {theirs or 'another class'} and cannot go on as {ours}")
    if wrong:
        raise ValueError(
            f"the checkpoint's optimizers do not fit: {'; '.join(wrong)}; keep the optimizer, or begin a new run from "
            "the checkpoint's weights"
        )


_LATER = {"decoupled_weight_decay", "fused", "foreach", "capturable", "differentiable", "maximize"}  # torch adds these
_PARTS = {"rng": "the random numbers", "watched": "the metrics that schedules watch"}


def replay(trainer: Trainer, checkpoint: dict[str, Any]) -> Position:
    """Write the position of ``checkpoint`` into its ``loops``, which Lightning is about to load, and return it."""
    state = checkpoint["gan"]
    saved = Position(**state["position"]) if "position" in state else _older_position(checkpoint)
    set_loops(trainer, checkpoint["loops"], **asdict(saved))
    return saved


def restore(trainer: Trainer, players: Mapping[str, Player], schedules: Schedules, state: Mapping[str, Any]) -> None:
    """Continue from what ``capture`` returned; the players are bound to their optimizers by now."""
    for name, player in players.items():
        if name in state["players"]:  # a regularizer may be new
            player.load_state_dict(state["players"][name])
    schedules.seen = dict(state["watched"])
    if position := state.get("position"):
        fast_forward(trainer, position["epoch"], position["batches"], position["epoch_end"])
    if trainer.is_global_zero:
        rewind(trainer.loggers, state.get("logs", {}), trainer.global_step)
    if any(callback.stopping_reason.value for callback in trainer.early_stopping_callbacks):
        log.info("early stopping has ended this run before")
        trainer.should_stop = True
    if len(state["rng"]) == trainer.world_size:
        set_rng_state(state["rng"][trainer.global_rank])
    else:
        set_apart(trainer.global_rank)
        log.warning("random numbers differ from the run resumed: it had %d processes", len(state["rng"]))


def _older_position(checkpoint: Mapping[str, Any]) -> Position:
    """Return the position of a checkpoint of version 0.1, read off Lightning's counters."""
    loops, due = checkpoint["loops"]["fit_loop"], checkpoint["gan"]["due"]
    batches, epochs = loops["epoch_loop.batch_progress"], loops["epoch_progress"]["current"]
    epoch, done, total = epochs["processed"], batches["current"]["ready"], batches["total"]["ready"]
    within, last = epochs["processed"] < epochs["ready"], batches["is_last_batch"]
    if not within and last:
        return Position(epoch, 0, total, checkpoint["global_step"])
    epoch -= not within  # cut short by max_steps, which Lightning counts as an epoch
    return Position(epoch, done, total, checkpoint["global_step"], due["validation"], within and last)
