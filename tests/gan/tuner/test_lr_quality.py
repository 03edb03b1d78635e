"""A range test that watches how good the generator is, and which curves are no basis for a rate."""

from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
from support.digits import DigitsGAN, digits, digits_loader, distance
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor
from torchmetrics import MeanMetric

from univnet.gan import Tuner, Updates


class Validated(ToyGAN):
    def __init__(self) -> None:
        super().__init__(noise=0.2)
        self.mean = MeanMetric()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        error = l2(self, batch)
        self.log("val/l2", error)
        self.mean.update(error)
        self.log_dict({"val/mean": self.mean})


def l2(module: Any, batch: Any) -> Tensor:
    return (module.generator(batch[0]) - batch[1]).square().mean()


@pytest.mark.parametrize("metric", [l2, "val/l2", "val/mean"])
def test_a_quality_function_or_a_validation_term_is_watched(metric: Any, tmp_path: Path) -> None:
    model, validation = Validated(), toy_loader(24, 8)
    options: dict[str, Any] = {"num_training": 3, "smoothing": 0, "update_attr": False, "metric": metric}
    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        model, toy_loader(), validation, rates=[1e-300] * 3, validation_batches=2, **options
    )
    [curve] = found.curves.values()
    assert curve.monitor == (metric if isinstance(metric, str) else "l2")
    by_hand = mean(l2(model, batch).item() for batch in list(validation)[:2])
    assert curve.raw == pytest.approx([by_hand] * 3, rel=1e-6)
    assert not curve.adversarial
    moving = Tuner(quiet_trainer(tmp_path)).lr_find(model, toy_loader(), validation, rates=[0.03] * 20, **options)
    assert moving.curves["generator"].raw[-1] < 0.9 * by_hand
    joint = Tuner(quiet_trainer(tmp_path)).lr_find(model, toy_loader(), validation, optimizer="joint", **options)
    assert joint.curves["generator"].raw == joint.curves["discriminator"].raw


def test_a_quality_function_takes_training_batches_if_there_are_no_others(tmp_path: Path) -> None:
    model, loader = ToyGAN(), toy_loader()
    options: dict[str, Any] = {"rates": [1e-300] * 2, "smoothing": 0, "update_attr": False}
    found = Tuner(quiet_trainer(tmp_path)).lr_find(model, loader, metric=l2, **options)
    by_hand = mean(l2(model, batch).item() for batch in list(loader)[:4])
    assert found.curves["generator"].raw == pytest.approx([by_hand] * 2, rel=1e-12)
    for validation, told in (
        (None, "validation_batches=4, but there is nothing"),
        (loader, "not logged by validation_step, which logs val/l2, val/mean"),
    ):
        with pytest.raises(ValueError, match=told):
            Tuner(quiet_trainer(tmp_path)).lr_find(Validated(), loader, validation, metric="val/fid", **options)
    with pytest.raises(ValueError, match="give monitor or metric"):
        Tuner(quiet_trainer(tmp_path)).lr_find(model, loader, metric=l2, monitor="generator/l2", **options)


@pytest.mark.parametrize("optimizer", ["generator", "discriminator", "joint", "grid"])
def test_adversarial_losses_are_marked(optimizer: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"optimizer": optimizer, "num_training": 2, "rates": [1e-3, 1e-2], "update_attr": False}
    tuner, loader = Tuner(quiet_trainer(tmp_path)), toy_loader()
    found = tuner.lr_find(ToyGAN(Updates(2)), loader, **options)
    fair = tuner.lr_find(ToyGAN(Updates(2)), loader, monitor={"generator": "generator/l2"}, **options)
    if optimizer == "grid":
        assert "generator/loss depends on the other player" in found.doubt
        assert fair.doubt is None
        return
    assert all(curve.adversarial for curve in found.curves.values())
    assert {name: curve.adversarial for name, curve in fair.curves.items()} == {
        name: name == "discriminator" for name in fair.curves
    }


@pytest.mark.parametrize("by", ["every", "none"])
def test_micro_batches_in_which_a_player_rests_are_left_out(by: str, tmp_path: Path) -> None:
    class FiveToOne(ToyGAN):
        def generator_loss(self, batch: Any, fake: Tensor) -> Any:
            played = self.updates["discriminator"].micro_batches
            return super().generator_loss(batch, fake) if played % 5 == 4 else None

    def gan() -> ToyGAN:
        return FiveToOne() if by == "none" else ToyGAN(Updates(every=5))

    tuner = Tuner(quiet_trainer(tmp_path))
    found = tuner.lr_find(gan(), toy_loader(), num_training=6, smoothing=0, update_attr=False)
    assert len(found.results["lr"]) == len(set(found.results["loss"])) == 6
    joint = tuner.lr_find(
        gan(), toy_loader(), num_training=6, optimizer="joint", early_stop_threshold=None, update_attr=False
    )
    assert len(joint.curves["generator"].lr) == 6
    assert len(joint.curves["discriminator"].lr) in range(26, 31)


def trained(seed: int, rates: dict[str, float | None]) -> float:
    """Return how far the digits are from real ones after 600 updates at these rates."""
    torch.manual_seed(seed)
    model = DigitsGAN(**{f"{name}_lr": rate for name, rate in rates.items() if rate is not None})
    quiet_trainer(max_steps=600, max_epochs=-1).fit(model, digits_loader())
    torch.manual_seed(99)
    with torch.no_grad():
        return float(distance(model.eval(), [digits()]))


@pytest.mark.slow
def test_digits_are_better_at_the_rates_that_quality_suggests(tmp_path: Path) -> None:
    after: dict[str, list[float]] = {"loss": [], "quality": []}
    for seed in (1, 2, 3):
        for name, options in {"loss": {}, "quality": {"metric": distance, "validation_batches": 8}}.items():
            torch.manual_seed(seed)
            found = Tuner(quiet_trainer(tmp_path)).lr_find(
                DigitsGAN(), digits_loader(), optimizer="both", min_lr=1e-6, num_training=200, update_attr=False,
                **options,
            )  # fmt: skip
            marked = ["depends on the other player" in (curve.doubt() or "") for curve in found.curves.values()]
            assert marked == [name == "loss"] * 2
            after[name].append(trained(seed, found.suggestions(quiet=True)))
    assert mean(after["quality"]) < 0.75 * mean(after["loss"]), after
