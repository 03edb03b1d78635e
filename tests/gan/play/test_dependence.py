"""Which loss terms depend on the other player is found in the training step, without a change to training."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.differentiating import Differentiating
from support.sweeps import OnePlayer
from support.toy import SharedToyGAN, ToyGAN, quiet_trainer, toy_loader
from torch import Tensor, nn

from univnet.gan.play.dependence import note_adversarial_terms


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
