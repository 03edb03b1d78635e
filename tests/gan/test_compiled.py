"""Compiled discriminators get the gradients of plain ones in both players' turns."""

from collections.abc import Iterator

import pytest
import torch
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor

from univnet.gan import GANModule


@pytest.fixture(autouse=True)
def _fresh() -> Iterator[None]:
    import torch._dynamo.config as dynamo

    torch._dynamo.reset()
    with dynamo.patch({"skip_tensor_guards_with_matching_dict_tags": True}):  # torch's default
        yield


class Penalized(ToyGAN):
    """Its discriminator judges pairs that require gradients, as the generator's turn does: for R1."""

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        x, y = batch
        real, fake = (self.discriminator(torch.cat([x, z], 1).requires_grad_()) for z in (y, fake))
        return {"loss": (1 - real).square().mean() + fake.square().mean()}


def train(gan: type[ToyGAN], backend: str | None) -> tuple[GANModule, list[Tensor]]:
    module = gan(noise=0.0)
    weights = list(module.parameters())
    if backend is not None:
        module.discriminator = torch.compile(module.discriminator, backend=backend)
    trainer = quiet_trainer(max_steps=4, max_epochs=-1)
    trainer.fit(module, toy_loader(16, 4))
    return module, weights


@pytest.mark.parametrize("gan", [ToyGAN, Penalized])
@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_both_players_learn_as_without_compiling(gan: type[ToyGAN], backend: str) -> None:
    (_, plain), (module, compiled) = train(gan, None), train(gan, backend)
    assert float(module.updates["discriminator"].report["gradient_norm"]) > 0
    for ours, theirs in zip(compiled, plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
