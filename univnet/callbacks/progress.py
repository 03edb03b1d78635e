"""A progress bar over the whole run, in generator updates."""

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar


class UpdateProgressBar(TQDMProgressBar):
    """Show generator updates out of ``max_steps``, both losses and the remaining time.

    Without ``max_steps`` it is Lightning's bar over an epoch's micro-batches.
    """

    def on_train_start(self, *args: Any) -> None:
        """Start the bar at the updates already made."""
        super().on_train_start(*args)
        trainer: Trainer = args[0]
        if trainer.max_steps > 0:
            self.train_progress_bar.reset(total=trainer.max_steps)
            self.train_progress_bar.initial = self.train_progress_bar.n = trainer.global_step

    def on_train_epoch_start(self, trainer: Trainer, *args: Any) -> None:
        """Show the epoch; a bar of updates continues."""
        if trainer.max_steps <= 0:
            super().on_train_epoch_start(trainer, *args)
        else:
            self.train_progress_bar.set_description(f"Epoch {trainer.current_epoch}")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Move the bar to the present update."""
        if trainer.max_steps <= 0:
            super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        elif not self.train_progress_bar.disable and trainer.global_step % self.refresh_rate == 0:
            self.train_progress_bar.n = trainer.global_step
            self.train_progress_bar.set_postfix(self.get_metrics(trainer, pl_module))

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the logged values to show, without the logger's version number."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}
