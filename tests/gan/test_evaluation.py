"""Losses that differentiate, rest or log can be evaluated outside a training step; what they depend on is known."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.sweeps import OnePlayer
from support.toy import SharedToyGAN, ToyGAN, quiet_trainer, toy_loader
from torch import Tensor, nn

from univnet.gan import StochasticWeightAveraging, Tuner
from univnet.gan.evaluation import note_adversarial_terms


class Differentiating(ToyGAN):
    """A gradient penalty for the critic (R1), an adaptive weight (VQGAN) for the generator, and a log in between."""

    def generate(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        fake = super().generate(batch)
        self.log("fake", fake.mean())
        return fake

    def generator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        terms = super().generator_loss(batch, fake)
        last = self.generator[-1].weight
        norms = [torch.autograd.grad(terms[name], last, retain_graph=True)[0].norm() for name in ("l2", "adversarial")]
        weight = (norms[0] / (norms[1] + 1e-4)).detach()
        return {**terms, "loss": terms["l2"] + weight * terms["adversarial"], "weight": weight}

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        real = torch.cat(batch, 1).requires_grad_()
        [gradient] = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        penalty = gradient.square().sum(1).mean()
        return {"loss": super().discriminator_loss(batch, fake)["loss"] + 5 * penalty, "penalty": penalty}


@pytest.mark.parametrize("term", ["generator/weight", "discriminator/penalty", "discriminator/loss"])
def test_a_range_test_validates_losses_that_differentiate(term: str, tmp_path: Path) -> None:
    model, validation = Differentiating(noise=0.1), toy_loader(16, 8)
    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        model, toy_loader(), validation, rates=[1e-300] * 3, monitor=term, smoothing=0, validation_batches=2,
        optimizer=term.partition("/")[0], update_attr=False,
    )  # fmt: skip
    assert len(found.results["loss"]) == 3
    assert min(found.results["loss"]) > 0
    if term == "discriminator/penalty":  # which the fakes have no part in, and the discriminator does not move
        by_hand = torch.stack([model.discriminator_loss(batch, batch[1])["penalty"] for batch in validation]).mean()
        assert found.results["loss"][0] == pytest.approx(by_hand.item(), rel=1e-12)


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_batch_norm_is_estimated_with_losses_that_differentiate_and_log(player: str, tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, player=player, swa_epoch_start=1)
    model = Differentiating(noise=0.1)
    for network in (model.generator, model.discriminator):
        network.insert(1, nn.BatchNorm1d(8, dtype=torch.float64))
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[swa])
    trainer.fit(model, toy_loader())
    estimated = swa.averaged["1.running_var"]
    assert estimated.isfinite().all()
    assert not torch.equal(estimated, getattr(model, player)[1].running_var)
    assert "fake" in trainer.callback_metrics


def test_batches_for_which_a_player_rests_do_not_count(tmp_path: Path) -> None:
    class Rests(ToyGAN):
        def generator_loss(self, batch: Any, fake: Tensor) -> Any:
            return None if batch[0].sum() < 0 else super().generator_loss(batch, fake)

    loader = toy_loader(40, 4)
    chosen = [batch for batch in loader if batch[0].sum() >= 0]
    assert 0 < len(chosen) < 10
    model = Rests()
    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        model, loader, loader, rates=[1e-300] * 2, monitor="generator/l2", smoothing=0, validation_batches=10,
        update_attr=False,
    )  # fmt: skip
    by_hand = torch.stack([(model.generator(x) - y).square().mean() for x, y in chosen]).mean()
    assert found.results["loss"] == pytest.approx([by_hand.item()] * 2, rel=1e-12)


class Detached(ToyGAN):
    def generator_loss(self, batch: Any, fake: Tensor) -> dict[str, Tensor]:
        terms = super().generator_loss(batch, fake)
        return {**terms, "adversarial": terms["adversarial"].detach(), "l2": terms["l2"].detach()}


class WeightNormed(ToyGAN):
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        nn.utils.parametrizations.weight_norm(self.discriminator[0])


@pytest.mark.parametrize("gan", [ToyGAN, Detached, WeightNormed, SharedToyGAN, Differentiating, OnePlayer])
def test_what_depends_on_the_other_player_is_known(gan: type[ToyGAN], tmp_path: Path) -> None:
    seen: dict[str, set[str]] = {}

    class Noted(gan):  # type: ignore[misc, valid-type]
        def on_train_start(self) -> None:
            super().on_train_start()
            note_adversarial_terms(self, self.updates.keys(), seen.__setitem__)

    def weights_after(kind: type[ToyGAN]) -> list[Tensor]:
        torch.manual_seed(0)
        module = kind(noise=0.1)
        quiet_trainer(tmp_path, limit_train_batches=3).fit(module, toy_loader())
        assert not {"generator_loss", "discriminator_loss"} & vars(module).keys() or gan is OnePlayer
        return list(module.parameters())

    for ours, theirs in zip(weights_after(Noted), weights_after(gan), strict=True):
        assert torch.equal(ours, theirs)
    if gan is OnePlayer:
        assert seen == {"generator": set()}
        return
    assert {"loss", *({"adversarial"} if gan is not SharedToyGAN else ())} <= seen["generator"]
    assert "l2" not in seen["generator"]
    assert "loss" in seen["discriminator"]
    assert not {"real", "penalty"} & seen["discriminator"]


def test_a_compiled_discriminator_is_seen_through(tmp_path: Path) -> None:
    module, seen = ToyGAN(), list[set[str]]()
    module.discriminator = torch.compile(module.discriminator, backend="eager")
    module.on_train_epoch_start = lambda: note_adversarial_terms(
        module, ["generator"], lambda _, terms: seen.append(terms)
    )
    quiet_trainer(tmp_path, limit_train_batches=2).fit(module, toy_loader())
    assert seen == [{"loss", "adversarial"}]
