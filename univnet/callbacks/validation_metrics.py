"""Objective speech metrics as validation terms."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from univnet.callbacks.throughput import sample_rate_of
from univnet.metrics import UtteranceMean, choose


class ValidationMetrics(Callback):
    """Log metrics of ``univnet.metrics`` as ``val/NAME``: their means over the first validation utterances.

    With averaged weights those of the average, as all ``val/…``. Under DDP the utterances are those that one process
    would take, each counted once. docs/quality.md says what each metric costs.

    Args:
        metrics: names, such as ``pesq``, ``stoi`` and ``periodicity_tiny``.
        utterances: how many validation utterances to measure; the first ones, the same each time.

    Raises:
        ValueError: naming every metric that does not exist or whose package is not installed.
        MisconfigurationException: before training, where the module has no ``sample_rate``.
    """

    def __init__(self, metrics: Sequence[str] = ("pesq",), utterances: int = 8) -> None:
        wrong = [] if utterances > 0 else [f"utterances must be at least 1, got {utterances}"]
        try:
            self._measures = choose(metrics)
            wrong += [each.missing for each in self._measures if each.missing]
        except ValueError as error:
            wrong.append(str(error))
        if wrong:
            raise ValueError(f"ValidationMetrics: {'; '.join(wrong)}")
        self.utterances = utterances
        self._means: dict[str, UtteranceMean] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without a sample rate."""
        sample_rate_of(pl_module, self)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin new means."""
        rate = sample_rate_of(pl_module, self)
        self._means = {each.name: UtteranceMean(each, rate).to(pl_module.device) for each in self._measures}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measure those of this batch that are among the first utterances."""
        if trainer.sanity_checking or dataloader_idx:
            return
        assert isinstance(outputs, Mapping)
        real = batch["audio"]
        for row in range(len(real)):
            # Processes take turns, and begin again with the first utterances where the last ones do not suffice.
            place = (batch_idx * len(real) + row) * trainer.world_size + trainer.global_rank
            if place < min(self.utterances, _size_of_validation(trainer)):
                for mean in self._means.values():
                    mean.update(outputs["audio"][row : row + 1], real[row : row + 1])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the means over all processes."""
        if not trainer.sanity_checking:
            for name, mean in self._means.items():
                pl_module.log(f"val/{name}", mean.compute())
        self._means = {}


def _size_of_validation(trainer: Trainer) -> int:
    loaders = trainer.val_dataloaders
    loader: Any = loaders[0] if isinstance(loaders, list) else loaders
    return len(loader.dataset)
