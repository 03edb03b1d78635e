"""When a sweep ends: divergence against analysis, collapse, and losses that are not finite."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor, nn

from univnet.gan import Collapse, GANModule, Tuner
from univnet.gan.tuner.lr_range_test import diverges


class Quadratic(GANModule):
    """Two players who do not meet: x and y on parabolas of curvature a and b, by plain gradient descent."""

    def __init__(self, curvatures: tuple[float, float], momentum: float = 0.0) -> None:
        super().__init__()
        self.generator, self.discriminator = (nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(2))
        self.curvatures, self.momentum = curvatures, momentum
        for net in (self.generator, self.discriminator):
            nn.init.constant_(net.weight, 3.0)

    def generate(self, batch: Any) -> Tensor:
        return self.generator.weight

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return self.curvatures[0] / 2 * fake.square().sum()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return self.curvatures[1] / 2 * self.discriminator.weight.square().sum()

    def configure_optimizers(self) -> Any:
        nets = self.generator, self.discriminator
        return [
            torch.optim.SGD(net.parameters(), 0.01 / curvature, momentum=self.momentum)
            for net, curvature in zip(nets, self.curvatures, strict=True)
        ]


@pytest.mark.parametrize("curvatures", [(1.0, 1.0), (300.0, 1.0), (1.0, 300.0), (0.02, 7.0)])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_divergence_rate_is_found(
    curvatures: tuple[float, float], player: str, momentum: float, tmp_path: Path
) -> None:
    curvature = dict(zip(("generator", "discriminator"), curvatures, strict=True))[player]
    bound = 2 * (1 + momentum) / curvature  # of gradient descent, with heavy-ball momentum too
    points = 80
    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        Quadratic(curvatures, momentum), toy_loader(400, 4), optimizer=player, min_lr=bound / 300, max_lr=30 * bound,
        num_training=points, smoothing=0, update_attr=False, collapse=Collapse(loss=0),
    )  # fmt: skip
    [curve] = found.curves.values()
    step = 9000 ** (1 / (points - 1))
    assert curve.ended == f"{player}/loss diverged"
    if momentum == 0:  # with it the loss of one update does not tell: it swings
        assert bound / step <= curve.divergence <= bound * step
    assert curve.lr[-1] <= bound * step**12


class Overwhelming(ToyGAN):
    """A discriminator that is told which is which, so that it wins as fast as it learns."""

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        x, y = batch
        real, fake = (self.discriminator(torch.cat([x, torch.full_like(y, label)], 1)) for label in (1.0, -1.0))
        loss = (1 - real).square().mean() + fake.square().mean()
        return {"loss": loss, "real_score": real.mean(), "fake_score": fake.mean()}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Collapse(loss=0.1, separation=None), "its loss fell to"),
        (Collapse(loss=0.0, separation=0.7), "it scores real examples"),
    ],
)
def test_the_suggestion_stays_below_the_discriminators_collapse(rule: Collapse, said: str, tmp_path: Path) -> None:
    model, loader = Overwhelming(), toy_loader(6400, 64)
    options: dict[str, Any] = {"update_attr": False, "collapse": rule, "min_lr": 1e-5, "max_lr": 1.0}
    found = Tuner(quiet_trainer(tmp_path)).lr_find(model, loader, optimizer="discriminator", **options)
    curve = found.curves["discriminator"]
    assert said in curve.ended
    assert curve.limit == curve.lr[-1]
    assert len(curve.lr) < 100
    rates = [rate for rate in curve.suggestions(skip_end=0).values() if rate is not None]
    assert len(rates) >= 4
    assert max(rates) < curve.limit
    joint = Tuner(quiet_trainer(tmp_path)).lr_find(model, loader, optimizer="joint", ratio=2.0, **options)
    assert joint.curves["generator"].limit == pytest.approx(joint.curves["discriminator"].limit / 2)


def test_losses_that_are_not_finite_end_the_test(tmp_path: Path) -> None:
    class Breaks(ToyGAN):
        def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
            loss = super().generator_loss(batch, fake)["loss"]
            return loss * (math.nan if self.updates["generator"].micro_batches in (5, 9, 10, 11) else 1.0)

    found = Tuner(quiet_trainer(tmp_path)).lr_find(Breaks(), toy_loader(), num_training=50, update_attr=False)
    [curve] = found.curves.values()
    assert [i for i, loss in enumerate(curve.raw) if math.isnan(loss)] == [5, 9, 10, 11]
    assert len(curve.raw) == 12
    assert curve.ended == "generator/loss was not finite 3 times in a row"


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_when_losses_diverge(scale: float) -> None:
    assert not any(diverges([scale] * n, 4.0, s) for n in range(60) for s in (0, 0.8, 0.98))  # Lightning: -1 "diverges"
    rising = [scale] * 40 + [scale + 10.0] * 10
    assert diverges(rising, 4.0, 0.8)
    assert not diverges(rising, None, 0.8)
    assert not diverges([scale] * 40 + [math.nan] * 3, 4.0, 0.8)
    assert not diverges([100.0, *[scale] * 40], 4.0, 0.8)  # it has fallen, not risen


def test_the_default_threshold_is_lightnings_for_positive_losses() -> None:
    assert not diverges([2.0, 1.0, 3.9], 4.0, 0)
    assert diverges([2.0, 1.0, 4.1], 4.0, 0)


def test_which_rule_holds_is_the_losses_business(tmp_path: Path) -> None:
    class Told(Overwhelming):
        collapse_rule = Collapse(loss=0.1, separation=None)

    class Wasserstein(ToyGAN):
        collapse_rule = Collapse()

        def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
            x, y = batch
            real, fake = (self.discriminator(torch.cat([x, z], 1)).mean() for z in (y, fake))
            return {"loss": fake - real, "critic_real": real, "critic_fake": fake}

    def ended(model: GANModule, **options: Any) -> str:
        found = Tuner(quiet_trainer(tmp_path)).lr_find(
            model, toy_loader(6400, 64), optimizer="discriminator", min_lr=1e-5, early_stop_threshold=None,
            num_training=60, update_attr=False, **options,
        )  # fmt: skip
        return found.curves["discriminator"].ended

    assert "collapsed" in ended(Told())
    assert ended(Told(), collapse=Collapse(loss=0, separation=None)) == ""
    assert ended(Overwhelming()) == ""  # although it has a real_score and a fake_score
    assert ended(Wasserstein()) == ""


def test_negative_losses_are_no_collapse() -> None:
    assert Collapse().seen({"loss": 0.01}, 1.0)
    assert Collapse().seen({"loss": 0.0}, 1.0)
    assert not Collapse().seen({"loss": -0.01}, 1.0)
    assert not Collapse().seen({"loss": -2.0}, -1.0)
    assert not Collapse(loss=0).seen({"loss": -0.01}, 1.0)
    assert not Collapse(loss=0).seen({"loss": 0.0}, 1.0)
