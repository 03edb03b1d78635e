"""Modules whose learning rates are searched."""

from typing import Any

import lightning as L
import torch
from torch import Tensor

from support.toy import ToyGAN


class Plain(L.LightningModule):
    """One player under Lightning's automatic optimization; it writes down the losses that Lightning smooths."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lr = ToyGAN().generator, 1e-3
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), self.lr)


class OnePlayer(ToyGAN):
    """The same as a GAN whose discriminator never plays."""

    def generator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> Tensor:
        return (fake - batch[1]).square().mean()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> None:
        return None

    def configure_optimizers(self) -> Any:
        return [torch.optim.AdamW(net.parameters(), 1e-3) for net in (self.generator, self.discriminator)]


class Tuned(ToyGAN):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters({"generator_lr": 1e-3, "discriminator_lr": 2e-3})

    def configure_optimizers(self) -> Any:
        rates = self.hparams["generator_lr"], self.hparams["discriminator_lr"]
        return [torch.optim.AdamW(n.parameters(), lr) for n, lr in zip(self.children(), rates, strict=True)]
