"""Losses that differentiate, rest or log can be evaluated outside a training step."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from support.differentiating import Differentiating
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor, nn

from univnet.gan import StochasticWeightAveraging, Tuner


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


class Stop(Callback):
    """Ends a run in its third epoch, after its averages have seen the micro-batch: they are finished at the end."""

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        trainer.should_stop |= trainer.global_step == 25


@pytest.mark.parametrize("stops", [[], [Stop()]], ids=["ends", "stops"])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_batch_norm_is_estimated_with_losses_that_differentiate_and_log(
    player: str, stops: list[Callback], tmp_path: Path
) -> None:
    swa = StochasticWeightAveraging(0.05, player=player, swa_epoch_start=1)
    model = Differentiating(noise=0.1)
    for network in (model.generator, model.discriminator):
        network.insert(1, nn.BatchNorm1d(8, dtype=torch.float64))
    trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=[swa, *stops])
    trainer.fit(model, toy_loader())
    estimated = swa.averaged["1.running_var"]
    assert estimated.isfinite().all()
    assert not torch.equal(estimated, getattr(model, player)[1].running_var)
    assert "fake" in trainer.callback_metrics
    assert trainer.global_step == (25 if stops else 30)


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
