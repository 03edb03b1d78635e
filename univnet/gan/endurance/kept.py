"""What a checkpoint holds of callbacks that the resumed run is without: kept as it was, so that no resume loses it."""

import logging
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Checkpoint, Timer

log = logging.getLogger(__name__)

# Their state is about a folder or a job, and is of no use to another.
_OF_ONE_JOB = (Checkpoint.__name__, "ModelCheckpoint", "LastCheckpoint", Timer.__name__)


class Kept:
    """The state of callbacks that are missing, averages of weights included; goes into every later checkpoint."""

    def __init__(self) -> None:
        self._states: dict[str, Any] = {}
        self._averaged: dict[tuple[str, str], Any] = {}

    def take_from(self, trainer: Trainer, checkpoint: Mapping[str, Any]) -> None:
        """Find what no callback of ``trainer`` is going to load, and say what it is."""
        present = {callback.state_key for callback in trainer.callbacks}  # type: ignore[attr-defined]
        saved = checkpoint.get("callbacks", {})
        self._states = {key: state for key, state in saved.items() if key not in present and _lasts(key)}
        ours = {(one.player, one.kind) for one in trainer.callbacks if hasattr(one, "kind")}  # type: ignore[attr-defined]
        averages = checkpoint.get("averaged", {}).items()
        every = {(player, kind): average for player, kinds in averages for kind, average in kinds.items()}
        self._averaged = {key: average for key, average in every.items() if key not in ours}
        if not trainer.checkpoint_callbacks:
            return
        for key in self._states:
            log.warning(
                "the checkpoint holds the state of %s, which this run is without: it is kept in the run's checkpoints "
                "as it was; add the callback to go on with it",
                key,
            )
        for (player, kind), average in self._averaged.items():
            log.warning(
                "the average (%s) of the %s's weights stays that of its update %s; vocoders are made from it unless "
                "asked for weights=raw",
                *(kind, player, average["updates"]),
            )

    def add_to(self, checkpoint: dict[str, Any]) -> None:
        """Add what is kept to ``checkpoint``."""
        if "callbacks" in checkpoint:  # not in files of weights alone
            checkpoint["callbacks"] = self._states | checkpoint["callbacks"]
        for (player, kind), average in self._averaged.items():
            checkpoint.setdefault("averaged", {}).setdefault(player, {})[kind] = average


def _lasts(key: str) -> bool:
    return key.partition("{")[0] not in _OF_ONE_JOB
