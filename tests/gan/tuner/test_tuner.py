"""``Tuner.lr_find``: which attributes it sets, and how mistakes are told."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.sweeps import OnePlayer, Plain, Tuned
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor

from univnet.gan import Tuner


def test_the_second_test_runs_at_the_rate_just_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    model, trainer, loader = Tuned(), quiet_trainer(tmp_path), toy_loader(6400, 64)

    def generate(self: Tuned, batch: Any) -> Tensor:
        rates.append(self.optimizers()[0].param_groups[0]["lr"])
        return ToyGAN.generate(self, batch)

    monkeypatch.setattr(Tuned, "generate", generate)
    found = Tuner(trainer).lr_find(model, loader, optimizer="both", min_lr=1e-5, num_training=60)
    suggested = found.suggestions()
    assert list(suggested) == ["generator", "discriminator"]
    assert None not in suggested.values()
    assert dict(model.hparams) == {f"{player}_lr": rate for player, rate in suggested.items()}
    first, second = found.curves.values()
    assert rates == [*first.lr, *[suggested["generator"]] * len(second.lr)]
    found = Tuner(trainer).lr_find(
        model, loader, optimizer="discriminator", min_lr=1e-5, num_training=60, attr_name="discriminator_lr"
    )
    assert model.hparams["discriminator_lr"] == found.suggestion()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adam"}, ValueError, "optimizer must be one of generator, discriminator, joint, both, grid"),
        (
            {"min_lr": 1.0, "max_lr": 0.1, "mode": "x", "num_training": 1},
            ValueError,
            "mode .*; the rates .*; num_train",
        ),
        ({"repeats": 0, "smoothing": 1, "suggest": "x", "grid_size": 1}, ValueError, "repeats .*; smoothing .*; sugg"),
        ({"monitor": "generator/x"}, ValueError, "'generator/x' is not logged; name one of discriminator/fake, disc"),
        ({"method": "validate"}, MisconfigurationException, "give method='fit'"),
        ({"update_attr": True}, AttributeError, "ToyGAN has no attribute or hyperparameter generator_lr to set"),
        ({"update_attr": True, "optimizer": "both"}, AttributeError, "generator_lr and no discriminator_lr"),
        ({"update_attr": True, "optimizer": "both", "attr_name": "lr"}, MisconfigurationException, "a mapping of both"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        Tuner(quiet_trainer(tmp_path)).lr_find(ToyGAN(), toy_loader(), **({"update_attr": False} | options))


def test_more_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the discriminator makes no updates yet"):
        Tuner(quiet_trainer(tmp_path)).lr_find(OnePlayer(), toy_loader(), optimizer="discriminator", update_attr=False)
    with pytest.warns(UserWarning, match="the discriminator makes no updates yet"):
        found = Tuner(quiet_trainer(tmp_path)).lr_find(OnePlayer(), toy_loader(), optimizer="both", update_attr=False)
    assert list(found.curves) == ["generator"]  # which is not lost
    with pytest.raises(MisconfigurationException, match="Plain is no univnet"):
        Tuner(quiet_trainer(tmp_path)).lr_find(Plain(), toy_loader())
    with pytest.raises(MisconfigurationException, match="LearningRateFinder: leave it out"):
        Tuner(quiet_trainer(tmp_path, callbacks=[LearningRateFinder()])).lr_find(ToyGAN(), toy_loader())
    with pytest.warns(UserWarning, match="fast_dev_run"):
        assert Tuner(quiet_trainer(tmp_path, fast_dev_run=True)).lr_find(ToyGAN(), toy_loader()) is None
