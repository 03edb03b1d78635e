"""The statistics of batch norm are estimated for the average, and nothing of training changes by it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from support.state import assert_equal_leaves
from support.toy import Stream, ToyGAN, quiet_trainer, toy_data, toy_loader
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader

from univnet.data import ResumableDataLoader
from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, Updates


class Normed(ToyGAN):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Updates(3), Updates(2), **kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).double()
        self.discriminator = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_batch_norm_is_estimated_anew(player: str, tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, player=player, swa_epoch_start=3)
    gan = Normed()
    trainer = quiet_trainer(tmp_path, max_epochs=5, callbacks=[swa])
    trainer.fit(gan, toy_loader())
    by_hand = Normed()
    by_hand.load_state_dict(gan.state_dict())
    getattr(by_hand, player).load_state_dict(swa.averaged)
    by_hand.train()
    if player == "generator":
        update_bn([x for x, _ in toy_loader()], by_hand.generator)
    else:
        inputs = [torch.cat([x, z], 1) for x, y in toy_loader() for z in (y, by_hand.generator(x).detach())]
        update_bn(inputs, by_hand.discriminator)
    estimated = getattr(by_hand, player).state_dict()
    for name, value in swa.averaged.items():
        assert torch.allclose(value.double(), estimated[name].double(), rtol=1e-10), name
    assert not torch.allclose(swa.averaged["1.running_var"], getattr(gan, player)[1].running_var)


def test_a_stream_of_examples_and_a_run_of_steps_are_averaged_the_same(tmp_path: Path) -> None:
    averages = []
    for loader in (toy_loader(), DataLoader(Stream(), batch_size=4)):
        torch.manual_seed(0)
        swa = StochasticWeightAveraging(0.05, swa_epoch_start=2)
        quiet_trainer(tmp_path, max_epochs=-1, max_steps=14, callbacks=[swa]).fit(Normed(), loader)
        assert swa.n_averaged == 3  # after the updates 8, 12 and 14
        averages.append(swa.averaged)
    assert_equal_leaves(*averages)


def test_estimation_changes_nothing_of_training(tmp_path: Path) -> None:
    class Seen(Normed):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/x", self.generator(batch[0]).mean())

    def fit(*callbacks: Callback) -> tuple[Any, Tensor]:
        torch.manual_seed(3)
        gan = Seen(noise=0.5)
        trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=list(callbacks), val_check_interval=4)
        trainer.fit(gan, loader_in_double(), toy_loader(8))
        return dict(gan.state_dict()), torch.get_rng_state()

    bare, averaged = fit(), fit(ExponentialMovingAverage(0.9, bn_batches=2))
    assert_equal_leaves(bare[0], averaged[0])
    assert torch.equal(bare[1], averaged[1])


def loader_in_double() -> Any:
    return ResumableDataLoader(toy_data(), batch_size=4, shuffle=True)
