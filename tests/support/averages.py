"""Runs in which averages are taken, with what they should be kept beside."""

from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from support.toy import ToyGAN, quiet_trainer, toy_loader, weights
from univnet.gan import GANModule, Updates


class Watch(Callback):
    """Records both rates of every micro-batch, and the generator after every update and every epoch."""

    def __init__(self) -> None:
        self.rates: list[tuple[float, ...]] = []
        self.updates: list[nn.Module] = []
        self.epochs: list[nn.Module] = []

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers))

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        if trainer.global_step > len(self.updates):
            self.updates.append(copied(module.generator))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.epochs.append(copied(module.generator))


class Validated(ToyGAN):
    """Logs one metric, with noise of training's kind, and keeps the weights seen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.validated: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(weights(self.generator))
        self.log_dict({"val/l2": self.generator_loss(batch, self.generate(batch))["l2"]})


class OnePlayer(L.LightningModule):
    """The same generator under Lightning's automatic optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = ToyGAN().generator

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.generator(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), 1e-2, betas=(0.5, 0.9))


class Alone(ToyGAN):
    """A generator that nobody judges."""

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return (fake - batch[1]).square().mean()


def copied(network: nn.Module) -> nn.Module:
    copy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(next(network.parameters()).dtype)
    copy.load_state_dict(network.state_dict())
    return copy


def fed(models: list[nn.Module], **kwargs: Any) -> dict[str, Tensor]:
    """Return what torch's AveragedModel makes of ``models``."""
    average = AveragedModel(models[0], **kwargs)
    for model in models:
        average.update_parameters(model)
    return average.module.state_dict()


def trained(
    tmp_path: Path, callback: Callback | list[Callback], gan: GANModule | None = None, **kwargs: Any
) -> tuple[Any, Watch, L.Trainer]:
    watch, gan = Watch(), gan or ToyGAN(Updates(3), Updates(2))
    callbacks = [*(callback if isinstance(callback, list) else [callback]), watch]
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, **{"num_sanity_val_steps": 0, "max_epochs": 6, **kwargs})
    validation = toy_loader(8) if isinstance(gan, Validated) else None
    trainer.fit(gan, toy_loader(), validation)
    return gan, watch, trainer
