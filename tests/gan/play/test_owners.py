"""Players are told apart by their networks."""

from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.toy import ToyGAN, by_hand, quiet_trainer, toy_loader, weights
from torch import Tensor, nn

from univnet.gan import ExponentialMovingAverage, Updates


class Swapped(ToyGAN):
    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()[::-1]


class Several(ToyGAN):
    """Two optimizers for the generator, one with two groups; the networks have other names."""

    networks: ClassVar = {"generator": ["first", "second"], "discriminator": ["critic"]}

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        own = self._modules
        generator = own.pop("generator")
        self.first, self.second, self.critic = generator[:2], generator[2], own.pop("discriminator")

    def generator(self, x: Tensor) -> Tensor:
        return self.second(self.first(x))

    def discriminator(self, x: Tensor) -> Tensor:
        return self.critic(x)

    def configure_optimizers(self) -> Any:
        adam = torch.optim.AdamW
        return [
            adam(self.critic.parameters(), 2e-2, betas=(0.5, 0.9)),
            adam([{"params": [p]} for p in self.first.parameters()], 1e-2, betas=(0.5, 0.9)),
            adam(self.second.parameters(), 1e-2, betas=(0.5, 0.9)),
        ]


@pytest.mark.parametrize("kind", [Swapped, Several])
def test_optimizers_in_any_order_and_number(kind: type[ToyGAN], tmp_path: Path) -> None:
    settings = {"generator": Updates(2, clip_norm=0.5), "discriminator": Updates()}
    ours, theirs = kind(*settings.values()), ToyGAN(*settings.values())
    trainer = quiet_trainer(tmp_path)
    trainer.fit(ours, toy_loader())
    by_hand(theirs, list(toy_loader()), settings)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-12, atol=1e-14)
    assert trainer.global_step == ours.updates["generator"].steps == 5


def test_all_networks_of_a_player_are_averaged(tmp_path: Path) -> None:
    ours, theirs = (ExponentialMovingAverage(0.9) for _ in range(2))
    quiet_trainer(tmp_path, callbacks=[ours]).fit(Several(), toy_loader())
    quiet_trainer(tmp_path, callbacks=[theirs]).fit(ToyGAN(), toy_loader())
    renamed = dict(
        zip(("first.0.weight", "first.0.bias", "second.weight", "second.bias"), theirs.averaged.values(), strict=True)
    )
    assert ours.averaged.keys() == renamed.keys()
    assert all(torch.equal(ours.averaged[name], value) for name, value in renamed.items())


def test_several_optimizers_resume(tmp_path: Path) -> None:
    def final(epochs: int, checkpoint: Path | None = None) -> torch.Tensor:
        gan = Several()
        trainer = quiet_trainer(tmp_path, max_epochs=epochs)
        trainer.fit(gan, toy_loader(), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return weights(gan)

    final(1)
    assert torch.equal(final(2, tmp_path / "1.ckpt"), final(2))


class Shared(ToyGAN):
    def __init__(self) -> None:
        super().__init__()
        self.discriminator[0].bias = self.generator[0].bias


class Mixed(ToyGAN):
    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD(self.parameters(), 0.1), torch.optim.SGD([nn.Parameter(torch.ones(1))], 0.1)]


class Twice(ToyGAN):
    def configure_optimizers(self) -> Any:
        return [*super().configure_optimizers(), torch.optim.SGD(self.generator[0].parameters(), 0.1)]


class Misnamed(ToyGAN):
    networks: ClassVar = {"generator": ["encoder"]}


class Alone(ToyGAN):
    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()[:1]


REFUSED = {
    Shared: "Shared: discriminator.0.bias belongs to both players",
    Mixed: r"parameters of both players to one optimizer \(generator.0.weight and discriminator.0.weight\)",
    Twice: "gives generator.0.weight to two optimizers",
    Misnamed: "Misnamed.networks names 'encoder' for the generator, but there is no such network",
    Alone: "must return two optimizers: the generator's, then the discriminator's; it returned 1",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_has_no_one_owner_is_refused_by_name(kind: type[ToyGAN], tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=REFUSED[kind]):
        quiet_trainer(tmp_path).fit(kind(), toy_loader())


def test_a_forgotten_init_is_named(tmp_path: Path) -> None:
    class Forgetful(ToyGAN):
        def __init__(self) -> None:
            self.rate = 1.0

    with pytest.raises(AttributeError, match=r"Forgetful.__init__ must call super\(\).__init__\(\)"):
        quiet_trainer(tmp_path).fit(Forgetful(), toy_loader())
