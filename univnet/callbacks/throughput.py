"""How fast training goes, in the unit that vocoder people compare."""

import time
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from univnet.module import UnivNet


class AudioThroughput(Callback):
    """Log ``throughput/audio_seconds_per_second``: seconds of audio trained per second of wall time, all ranks.

    Measured over each logging interval; validation is left out.
    """

    def __init__(self) -> None:
        self._logged_at = 0
        self._restart()

    def _restart(self) -> None:
        self._samples, self._since = 0, time.perf_counter()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock."""
        self._logged_at = trainer.global_step
        self._restart()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the clock again."""
        self._restart()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count this batch, and log where the trainer logs."""
        assert isinstance(pl_module, UnivNet)
        self._samples += batch["audio"].numel()
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or step % every or step == self._logged_at:
            return
        seconds = self._samples * trainer.world_size / pl_module.mel.sample_rate
        speed = seconds / (time.perf_counter() - self._since)
        for logger in trainer.loggers:
            logger.log_metrics({"throughput/audio_seconds_per_second": speed}, step=step)
        self._logged_at = step
        self._restart()
