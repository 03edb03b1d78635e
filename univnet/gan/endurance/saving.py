"""Lightning's ``ModelCheckpoint`` saves for two players when it would for one."""

from functools import partial
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint


def save_as_for_one_player(trainer: Trainer) -> None:
    """Let every ``ModelCheckpoint`` of ``trainer`` keep to its ``train_time_interval`` and to the newest validation.

    Under manual optimization Lightning 2.6 ignores the interval, and ranks what it saves on an epoch's last micro-batch
    by the validation before the one that follows.
    """
    for each in trainer.checkpoint_callbacks:
        if isinstance(each, ModelCheckpoint):
            vars(each).setdefault("on_train_batch_end", partial(_on_train_batch_end, each))


def _on_train_batch_end(callback: ModelCheckpoint, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
    type(callback).on_train_batch_end(callback, trainer, _Automatic(pl_module), *args)  # type: ignore[arg-type]


class _Automatic:
    """A module that says it were optimized automatically."""

    automatic_optimization = True

    def __init__(self, module: LightningModule) -> None:
        self._module = module

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)
