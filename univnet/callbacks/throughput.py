"""Training speed, in seconds of audio per second."""

import time
from typing import Any, cast

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException


def sample_rate_of(pl_module: LightningModule, callback: Callback) -> int:
    """Return the module's ``sample_rate`` in Hz, for a callback that needs one.

    Raises:
        MisconfigurationException: if the module has none.
    """
    if not hasattr(pl_module, "sample_rate"):
        raise MisconfigurationException(
            f"{type(callback).__name__} counts seconds: set {type(pl_module).__name__}.sample_rate to the samples per "
            "second"
        )
    return cast(int, pl_module.sample_rate)


class AudioThroughput(Callback):
    """Log ``throughput/audio_seconds_per_second``: seconds of audio trained per second of wall time, all ranks.

    Measured over each logging interval, without validation. The module must have the audio's ``sample_rate`` in Hz; its
    batches must hold ``"audio"``.

    Raises:
        MisconfigurationException: before training, if the module has no ``sample_rate``.
    """

    def __init__(self) -> None:
        self._logged_at = 0
        self._restart()

    def _restart(self) -> None:
        self._samples, self._since = 0, time.perf_counter()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without a sample rate."""
        sample_rate_of(pl_module, self)

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
        """Count this batch, and log when the trainer logs."""
        self._samples += batch["audio"].numel()
        step, every = trainer.global_step, trainer.log_every_n_steps  # type: ignore[attr-defined]
        if not every or step % every or step == self._logged_at:
            return
        seconds = self._samples * trainer.world_size / sample_rate_of(pl_module, self)
        speed = seconds / (time.perf_counter() - self._since)
        for logger in trainer.loggers:
            logger.log_metrics({"throughput/audio_seconds_per_second": speed}, step=step)
        self._logged_at = step
        self._restart()
