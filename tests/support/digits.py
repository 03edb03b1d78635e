"""A purely adversarial GAN of handwritten digits (8 × 8, scikit-learn's), and how far its digits are from real ones."""

from typing import Any

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import softplus
from torch.utils.data import DataLoader, TensorDataset

from univnet.gan import GANModule

_NOISE = 16


def digits() -> Tensor:
    """Return the 1797 images, each as 64 numbers in [−1, 1]."""
    return torch.from_numpy(load_digits().data).float() / 8 - 1


def digits_loader(batch_size: int = 64) -> DataLoader:
    order = torch.Generator().manual_seed(0)
    return DataLoader(TensorDataset(digits()), batch_size, shuffle=True, drop_last=True, generator=order)


class DigitsGAN(GANModule):
    """The non-saturating GAN (Goodfellow et al. 2014), each player a perceptron."""

    def __init__(self, generator_lr: float = 2e-4, discriminator_lr: float = 2e-4) -> None:
        super().__init__()
        self.save_hyperparameters("generator_lr", "discriminator_lr")
        self.generator = nn.Sequential(
            nn.Linear(_NOISE, 64),
            nn.LeakyReLU(0.2),
            nn.Linear(64, 128),
            nn.LeakyReLU(0.2),
            nn.Linear(128, 64),
            nn.Tanh(),
        )
        self.discriminator = nn.Sequential(
            nn.Linear(64, 128), nn.LeakyReLU(0.2), nn.Linear(128, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
        )

    def generate(self, batch: Any) -> Tensor:
        return self.generator(torch.randn(len(batch[0]), _NOISE))

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return softplus(-self.discriminator(fake)).mean()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return softplus(-self.discriminator(batch[0])).mean() + softplus(self.discriminator(fake)).mean()

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(getattr(self, name).parameters(), self.hparams[f"{name}_lr"], betas=(0.5, 0.9))
            for name in ("generator", "discriminator")
        ]


def distance(module: Any, batch: Any) -> Tensor:
    """Return the energy distance between generated and real digits: 0 if their distributions are the same."""
    real, fake = batch[0], module.generate(batch)
    within = [torch.cdist(x, x).sum() / (len(x) * (len(x) - 1)) for x in (real, fake)]
    return 2 * torch.cdist(real, fake).mean() - within[0] - within[1]
