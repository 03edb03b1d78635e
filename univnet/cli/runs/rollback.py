"""By option, a run that turns NaN or infinite goes back to its last good checkpoint, at half the rate."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from univnet.cli.messages import UsageError
from univnet.cli.runs.rates import FOLLOWING
from univnet.gan import NonFiniteError
from univnet.gan.endurance.newest import Whole, newest_whole


class RolledBack(Exception):  # noqa: N818 - no error, but the way back to where a run begins
    """The run is to be started again, from ``whole``, with another learning rate of ``player``."""

    def __init__(self, whole: Whole, player: str, rate: float) -> None:
        super().__init__(str(whole.path))
        self.whole, self.player, self.rate = whole, player, rate


@dataclass
class Rollbacks:
    """The times that a run has gone back.

    Attributes:
        made: checkpoints gone back to, with their updates: none is taken twice without progress in between.
        rates: the halved learning rates by players.
    """

    made: list[Whole] = field(default_factory=list)
    rates: dict[str, float] = field(default_factory=dict)

    def note(self, back: RolledBack) -> None:
        """Keep where ``back`` leads."""
        self.made.append(back.whole)
        self.rates[back.player] = back.rate

    @property
    def options(self) -> list[str]:
        """What the run is to be started with besides its own options."""
        rates = [f"--model.{player}_lr={rate!r}" for player, rate in self.rates.items()]
        return [f"--ckpt_path={self.made[-1].path}", "--init_from=null", *rates] if self.made else []

    def back_from(self, error: NonFiniteError, trainer: Trainer, rates: Mapping[str, float], limit: int) -> RolledBack:
        """Return the way back after ``error``, and say what is done.

        Raises:
            NonFiniteError: ``error`` itself, where the run has gone back ``limit`` times, or has nothing to go back to.
        """
        folders = [each.dirpath for each in trainer.checkpoint_callbacks if isinstance(each, ModelCheckpoint)]
        files = {path for folder in folders if folder for path in Path(folder).glob("*.ckpt")}
        used = set(self.made)
        fresh = [path for path in files if (whole := newest_whole([path])) is not None and whole not in used]
        whole = newest_whole(fresh)
        if whole is None or len(self.made) >= limit:
            raise error
        rate = rates[error.player] / 2
        rank_zero_info(f"univnet: {error}")
        rank_zero_info(
            f"univnet: rolls back to {whole.path}, of update {whole.steps}, with {error.player}_lr halved to {rate:g}; "
            f"{limit - len(self.made) - 1} more rollbacks are allowed"
        )
        return RolledBack(whole, error.player, rate)


def check_rollbacks(limit: int, trainer: Trainer, schedules: Mapping[str, Any]) -> None:
    """Refuse rollbacks where they cannot be made.

    Args:
        limit: how many are allowed.
        trainer: the trainer.
        schedules: of both players, as in the configuration.

    Raises:
        UsageError: naming what is in the way.
    """
    if limit < 0:
        raise UsageError(f"rollbacks must not be negative, got {limit}")
    if not limit:
        return
    if trainer.world_size > 1:
        raise UsageError("rollbacks need a run of one process: leave them out, or train on one device")
    if not trainer.checkpoint_callbacks:
        raise UsageError("rollbacks need checkpoints: set trainer.enable_checkpointing to true")
    for player, schedule in schedules.items():
        kind = ((schedule or {}).get("scheduler") or {}).get("class_path", "").rpartition(".")[2]
        if kind and kind not in FOLLOWING:
            raise UsageError(f"rollbacks halve {player}_lr, but {kind} sets the rates itself: use another schedule")
