"""What some options of Lightning's ask of others that have defaults here: the defaults give way."""

from typing import Any

from univnet.cli.messages import UsageError
from univnet.cli.runs.given import is_given

EVERY = "checkpoint_every.every_n_train_steps"


def give_way(config: Any, given: set[str]) -> None:
    """Change ``config`` in place where a default would be in the way of what was asked for.

    - ``checkpoint_every`` by time or by epochs is not by updates as well, unless both were given by hand; by epochs
      means at their ends.
    - ``checkpoint_every.save_top_k: N`` without a monitor keeps the newest N.
    - ``barebones`` leaves out the log, the checkpoints and the progress bar.

    Raises:
        UsageError: the time between two checkpoints is none.
    """
    every = config.checkpoint_every
    if every.train_time_interval is not None and not every.train_time_interval:
        raise UsageError("checkpoint_every.train_time_interval is no time at all: give H:MM:SS, such as 0:30:00")
    if (every.train_time_interval or every.every_n_epochs) and not is_given(EVERY, given):
        every.every_n_train_steps = None
    if every.every_n_epochs and every.save_on_train_epoch_end is None:
        every.save_on_train_epoch_end = True  # Lightning would at validations, which come when they like
    if every.save_top_k > 1 and every.monitor is None:
        every.monitor, every.mode = "step", "max"
    trainer = config.trainer
    if trainer.barebones:
        trainer.logger = trainer.enable_checkpointing = trainer.enable_progress_bar = False
        trainer.enable_model_summary = False
        trainer.log_every_n_steps = trainer.num_sanity_val_steps = None
