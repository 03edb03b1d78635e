"""The newest state of a run, always in one file."""

import signal
import threading
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` beside the run's other checkpoints, to go on from with ``--ckpt_path last``.

    Written after every so many generator updates, after every validation, when training ends, and when it is
    interrupted (Ctrl-C or SIGTERM, in a run of one process). It always holds the state between two micro-batches:
    Ctrl-C within one takes effect at its end, a second Ctrl-C at once and without saving.

    Args:
        every_n_train_steps: generator updates between two writings.

    Raises:
        ValueError: where that is not a positive number.
    """

    def __init__(self, every_n_train_steps: int = 1000) -> None:
        if every_n_train_steps < 1:
            raise ValueError(f"checkpoint_last.every_n_train_steps must be at least 1, got {every_n_train_steps}")
        self.every_n_train_steps = every_n_train_steps
        self._saved: tuple[int, int] | None = None
        self._within = self._asked = False
        self._usual: Any = None
        self._progress: Any = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over Ctrl-C."""
        self._saved, self._within, self._asked = _place(trainer), False, False
        self._progress = trainer.fit_loop.epoch_loop.batch_progress.current
        if trainer.world_size == 1 and threading.current_thread() is threading.main_thread():
            self._usual = signal.signal(signal.SIGINT, self._on_interrupt)

    def on_train_batch_start(self, *_: Any) -> None:
        """Note that the state is not one to save."""
        self._within = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save where it is due, and stop where Ctrl-C asked for it."""
        step, at = trainer.global_step, self._saved[0] if self._saved else 0
        due = step != at and step % self.every_n_train_steps == 0
        if due or self._asked or trainer.should_stop or step == trainer.max_steps:
            self._save(trainer)
        self._within = False
        if self._asked:
            raise KeyboardInterrupt

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, so that this file is never behind the best one."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer, anew=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is not saved yet; anew it would be the state after an epoch that may have been cut short."""
        self._save(trainer)
        self._give_back()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save if the state is one to save: what failed between two micro-batches, a loader say, has not spoilt it."""
        self._give_back()
        whole = self._at_rest or (self._asked and not self._within)
        if whole and self._saved is not None and trainer.world_size == 1:
            self._save(trainer)
            rank_zero_info(f"Saved {_file(trainer)} at update {trainer.global_step}: go on with --ckpt_path last")

    def _save(self, trainer: Trainer, anew: bool = False) -> None:
        tried_out = trainer.fast_dev_run  # type: ignore[attr-defined]
        if tried_out or (self._saved == _place(trainer) and not anew):
            return
        trainer.save_checkpoint(_file(trainer), weights_only=False)
        self._saved = _place(trainer)

    def _on_interrupt(self, *_: Any) -> None:
        if self._at_rest or self._asked:
            raise KeyboardInterrupt
        self._asked = True

    @property
    def _at_rest(self) -> bool:
        """Whether no micro-batch is under way, by Lightning's count: from before its first hook to after its last."""
        done = self._progress
        return not self._within and (done is None or done.ready == done.completed)

    def _give_back(self) -> None:
        if self._usual is not None:
            signal.signal(signal.SIGINT, self._usual)
            self._usual = None


def _place(trainer: Trainer) -> tuple[int, int]:
    return trainer.global_step, trainer.fit_loop.epoch_loop.total_batch_idx


def _file(trainer: Trainer) -> Path:
    for other in trainer.checkpoint_callbacks:
        if isinstance(other, ModelCheckpoint) and other.dirpath:
            return Path(other.dirpath, "last.ckpt")
    return Path(trainer.log_dir or trainer.default_root_dir, "checkpoints", "last.ckpt")
