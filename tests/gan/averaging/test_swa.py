"""Stochastic weight averaging: the average and the rate are Lightning's and torch's."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import StochasticWeightAveraging as LightningSWA
from support.averages import Alone, OnePlayer, Watch, fed, trained
from support.state import assert_equal_leaves
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor, nn
from torch.optim.swa_utils import SWALR

from univnet.gan import StochasticWeightAveraging, Updates


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("start", [3, 0.25, 0.0, 1.0])
def test_swa_at_epoch_starts_is_lightnings(strategy: Any, start: Any, tmp_path: Path) -> None:
    settings = {"swa_epoch_start": start, "annealing_epochs": 4, "annealing_strategy": strategy}
    theirs, watch = OnePlayer(), Watch()
    swa = LightningSWA(0.05, **settings)
    quiet_trainer(tmp_path, max_epochs=8, callbacks=[swa, watch]).fit(theirs, toy_loader())
    ours = StochasticWeightAveraging(0.05, average_at="epoch_start", **settings)
    _, watched, _ = trained(tmp_path, ours, Alone(), max_epochs=8)
    assert [rate for rate, _ in watched.rates] == [rate for (rate,) in watch.rates]
    assert ours.n_averaged == swa.n_averaged == 8 - max(int(start * 8 if isinstance(start, float) else start) - 1, 0)
    assert_equal_leaves(ours.averaged, dict(theirs.generator.state_dict()))


def test_swa_at_epoch_ends_is_averaged_model_fed_by_hand(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=3, annealing_epochs=2)
    _, watch, _ = trained(tmp_path, swa)
    assert swa.n_averaged == 4
    assert_equal_leaves(swa.averaged, fed(watch.epochs[2:]))


def test_swa_every_n_updates_and_the_last(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_update_start=5, annealing_updates=4, every_n_updates=3)
    _, watch, _ = trained(tmp_path, swa, max_epochs=4)  # 16 updates: 8, 11, 14, and the last
    assert_equal_leaves(swa.averaged, fed([watch.updates[n - 1] for n in (8, 11, 14, 16)]))


def test_swa_averages_from_an_epoch_on(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(1e-3, swa_epoch_start=2, annealing_epochs=3, update_starting_at_epoch=4)
    _, watch, _ = trained(tmp_path, swa)
    assert_equal_leaves(swa.averaged, fed(watch.epochs[4:]))
    assert [rate for rate, _ in watch.rates[35:45]] == pytest.approx([1e-3 + 9e-3 / 4] * 5 + [1e-3] * 5)
    both = StochasticWeightAveraging(1e-3, swa_update_start=4, every_n_updates=9, update_starting_at_epoch=4)
    _, watch, _ = trained(tmp_path, both)
    assert_equal_leaves(both.averaged, fed([watch.updates[n - 1] for n in (13, 20, 22, 24)]))


def test_a_rule_of_ones_own_is_asked_once_swa_has_begun(tmp_path: Path) -> None:
    asked = []

    class Odd(StochasticWeightAveraging):
        def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
            asked.append((step_idx, epoch_idx))
            return step_idx in (17, 19)

    swa = Odd(0.05, swa_epoch_start=5)
    _, watch, _ = trained(tmp_path, swa)
    assert asked == [*((n, None) for n in range(16, 20)), (None, 4), *((n, None) for n in range(20, 24)), (None, 5)]
    assert_equal_leaves(swa.averaged, fed([watch.updates[n] for n in (17, 19, 23)]))  # the last one is always included


def test_custom_avg_fn(tmp_path: Path) -> None:
    def fn(average: Tensor, weight: Tensor, taken: Tensor) -> Tensor:
        return average + (weight - average) / (taken + 2)

    swa = StochasticWeightAveraging(0.05, swa_epoch_start=2, avg_fn=fn)
    _, watch, _ = trained(tmp_path, swa)
    assert_equal_leaves(swa.averaged, fed(watch.epochs[1:], avg_fn=fn))


@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("unit", ["epochs", "updates"])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_the_rate_anneals_as_swalrs(unit: str, strategy: Any, length: int, tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(
        1e-3, swa_epoch_start=2, annealing_strategy=strategy, **{f"annealing_{unit}": length}
    )
    _, watch, _ = trained(tmp_path, swa, ToyGAN(Updates(3), Updates(2)))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1e-2)
    schedule, rates = SWALR(optimizer, 1e-3, length, strategy), []
    for batch in range(10, 60):
        rates.append(optimizer.param_groups[0]["lr"])
        last = batch % 10 == 9
        if last or (unit == "updates" and batch % 10 % 3 == 2):
            optimizer.step()
            schedule.step()
    assert [rate for rate, _ in watch.rates] == [1e-2] * 10 + rates
    assert {rate for _, rate in watch.rates} == {2e-2}


def test_each_group_anneals_to_its_own_rate(tmp_path: Path) -> None:
    class Groups(ToyGAN):
        def configure_optimizers(self) -> Any:
            groups = [{"params": self.generator[0].parameters()}, {"params": self.generator[2].parameters(), "lr": 0.2}]
            return [torch.optim.SGD(groups, 0.1), torch.optim.SGD(self.discriminator.parameters(), 0.1)]

    class Rates(Watch):
        def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
            self.rates.append(tuple(group["lr"] for group in trainer.optimizers[0].param_groups))

    rates, swa = Rates(), StochasticWeightAveraging([0.123, 0.321], swa_epoch_start=1, annealing_epochs=2)
    trained(tmp_path, [swa, rates], Groups(), max_epochs=3)
    assert rates.rates[::10] == [(0.1, 0.2), pytest.approx((0.1115, 0.2605)), pytest.approx((0.123, 0.321))]


def test_only_the_players_schedulers_are_held(tmp_path: Path) -> None:
    def schedules(generator: Any, discriminator: Any) -> Any:
        def step(optimizer: Any) -> Any:
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        return step(generator), step(discriminator)

    swa = StochasticWeightAveraging(1e-4, swa_epoch_start=3, annealing_epochs=1)
    gan, watch, trainer = trained(tmp_path, swa, ToyGAN(schedulers=schedules))
    ours, theirs = (config.scheduler for config in trainer.lr_scheduler_configs)
    assert (ours.last_epoch, theirs.last_epoch) == (20, 60)
    assert [rate for rate, _ in watch.rates[20:]] == pytest.approx([1e-2 * 0.9**20] * 10 + [1e-4] * 30)
    assert watch.rates[59][1] == pytest.approx(2e-2 * 0.9**59)
    assert gan.schedules.held == set()


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"max_epochs": 6, "max_steps": 20}, [12, 16, 20]),  # of 24: it is max_steps that ends training
        ({"max_epochs": -1, "max_steps": 20}, [12, 16, 20]),
        ({"max_epochs": 5, "max_steps": 60}, [8, 12, 16, 20]),  # of 20: it is max_epochs
    ],
)
def test_a_fraction_is_of_what_ends_training(settings: Any, updates: list[int], tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=0.4)
    _, watch, _ = trained(tmp_path, swa, **settings)
    assert_equal_leaves(swa.averaged, fed([watch.updates[n - 1] for n in updates]))
