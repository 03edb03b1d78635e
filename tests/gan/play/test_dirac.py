"""The Dirac-GAN (Mescheder et al. 2018, arXiv 1801.04406, section 2) with a Wasserstein loss: D(x) = ψ·x, data at 0."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import quiet_trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from univnet.gan import GANModule

RATE = 0.1


class Dirac(GANModule):
    def __init__(self, order: Any) -> None:
        super().__init__(order=order)
        self.generator, self.discriminator = nn.Linear(1, 1, bias=False).double(), nn.Linear(1, 1, bias=False).double()
        nn.init.ones_(self.generator.weight)
        nn.init.ones_(self.discriminator.weight)

    def generate(self, batch: Tensor) -> Tensor:
        return self.generator(batch)

    def generator_loss(self, batch: Tensor, fake: Tensor) -> Tensor:
        return -self.discriminator(fake).mean()

    def discriminator_loss(self, batch: Tensor, fake: Tensor) -> Tensor:
        return self.discriminator(fake).mean()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(net.parameters(), RATE) for net in (self.generator, self.discriminator)]


@pytest.mark.parametrize("order", ["simultaneous", "discriminator_first"])
def test_simultaneous_players_spiral_out_and_alternating_ones_do_not(order: str, tmp_path: Path) -> None:
    gan = Dirac(order)
    quiet_trainer(tmp_path, max_epochs=1).fit(gan, DataLoader(torch.ones(200, 1, dtype=torch.float64), batch_size=1))
    distance = float(torch.cat([gan.generator.weight, gan.discriminator.weight]).norm())
    if order == "simultaneous":
        assert distance == pytest.approx(
            2**0.5 * (1 + RATE**2) ** 100
        )  # in closed form: each update turns and stretches
    else:
        assert 1 < distance < 2
