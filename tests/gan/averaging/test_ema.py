"""The exponential moving average is torch's, fed by hand."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.averages import Alone, OnePlayer, fed, trained
from support.state import assert_equal_leaves
from support.toy import ToyGAN, quiet_trainer, toy_loader, weights
from torch.optim.swa_utils import get_ema_multi_avg_fn

from univnet.gan import ExponentialMovingAverage, Updates


def assert_averages_as_lightning(
    ours: ExponentialMovingAverage, settings: dict[str, Any], epochs: int, folder: Path
) -> None:
    lightnings = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    theirs, callback = OnePlayer(), lightnings.EMAWeightAveraging(**settings)
    quiet_trainer(folder, max_epochs=epochs, callbacks=[callback]).fit(theirs, toy_loader())
    trained(folder, ours, Alone(), max_epochs=epochs)
    for name, value in theirs.generator.state_dict().items():
        assert torch.allclose(ours.averaged[name], value, rtol=1e-12, atol=0)


@pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 2)])
def test_ema_is_torchs_fed_by_hand(every: int, start: int, tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9, update_every_n_steps=every, update_starting_at_step=start)
    _, watch, _ = trained(tmp_path, ema)
    taken = watch.updates[start + every - 1 :: every]
    assert ema.n_averaged == len(taken) == (24 - start) // every
    assert_equal_leaves(ema.averaged, fed(taken, multi_avg_fn=get_ema_multi_avg_fn(0.9)))


@pytest.mark.parametrize(("every", "start", "epoch"), [(1, 0, None), (1, 3, None), (1, 0, 2), (1, 25, 1), (0, 0, 3)])
def test_ema_is_lightnings(every: int, start: int, epoch: int | None, tmp_path: Path) -> None:
    settings: dict[str, Any] = {
        "decay": 0.9,
        "update_every_n_steps": every,
        "update_starting_at_step": start,
        "update_starting_at_epoch": epoch,
    }
    assert_averages_as_lightning(ExponentialMovingAverage(**settings), settings, 5, tmp_path)


class TheirRule(ExponentialMovingAverage):
    """Averages after Lightning's updates: the first, and each n-th after it."""

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return step_idx is not None and step_idx % self.update_every_n_steps == 0


@pytest.mark.parametrize(("every", "start"), [(1, 0), (1, 7), (3, 0), (5, 10), (3, 4)])
def test_the_nth_update_is_averaged_where_lightning_averages_the_one_after_it(every: int, start: int) -> None:
    lightnings = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    settings = {"update_every_n_steps": every, "update_starting_at_step": start}
    ours, theirs = ExponentialMovingAverage(**settings), lightnings.EMAWeightAveraging(**settings)
    updates = range(1, 31)
    assert [n for n in updates if ours.should_update(n - 1)] == [*range(start + every, 31, every)]
    first = start + 1 + -start % every
    assert [n for n in updates if theirs.should_update(n - 1)] == [*range(first, 31, every)]


def test_ema_by_lightnings_rule_is_lightnings(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"decay": 0.9, "update_every_n_steps": 3}
    assert_averages_as_lightning(TheirRule(**settings), settings, 2, tmp_path)


def test_networks_made_in_configure_model_are_averaged(tmp_path: Path) -> None:
    class Late(Alone):
        def __init__(self) -> None:
            super().__init__()
            self.generator = None

        def configure_model(self) -> None:
            if self.generator is None:
                self.generator = ToyGAN().generator

    averages = []
    for gan in (Late(), Alone()):
        ema = ExponentialMovingAverage(0.9)
        trained(tmp_path, ema, gan, max_epochs=1)
        averages.append(ema.averaged)
    assert_equal_leaves(*averages)


def test_a_rule_of_ones_own_is_asked_as_lightnings_is(tmp_path: Path) -> None:
    lightnings = pytest.importorskip("lightning.pytorch.callbacks.weight_averaging")
    asked: dict[str, list[Any]] = {"theirs": [], "ours": []}

    def rule(whose: str) -> Any:
        def should_update(self: Any, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
            asked[whose].append((step_idx, epoch_idx))
            return step_idx in (3, 14) or epoch_idx == 2

        return should_update

    theirs = type("Theirs", (lightnings.WeightAveraging,), {"should_update": rule("theirs")})()
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[theirs]).fit(OnePlayer(), toy_loader())
    ours = type("Ours", (ExponentialMovingAverage,), {"should_update": rule("ours")})(0.9)
    _, watch, _ = trained(tmp_path, ours, Alone(), max_epochs=3)
    assert asked["ours"] == asked["theirs"]
    expected = fed([watch.updates[n] for n in (3, 14, 29)], multi_avg_fn=get_ema_multi_avg_fn(0.9))
    assert_equal_leaves(ours.averaged, expected)


def test_several_updates_of_one_micro_batch_are_averaged_once(tmp_path: Path) -> None:
    ema, gan = ExponentialMovingAverage(0.9, update_every_n_steps=3), ToyGAN()
    gan.order, gan.updates["generator"].settings = "generator_first", Updates(repeat=2)
    trained(tmp_path, ema, gan, max_epochs=3)
    assert gan.updates["generator"].steps == 60
    assert ema.n_averaged == 20


def test_ema_warms_up(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.8, warmup_gamma=2, warmup_power=0.75)
    _, watch, _ = trained(tmp_path, ema, max_epochs=2)
    average = weights(watch.updates[0])
    for t, model in enumerate(watch.updates[1:], 1):
        decay = min(0.8, 1 - (1 + t / 2) ** -0.75)
        average = decay * average + (1 - decay) * weights(model)
    ours = torch.cat([value.flatten() for value in ema.averaged.values()])
    assert torch.allclose(ours, average, rtol=1e-12)
    assert ema.decay_at(1) < ema.decay_at(1000) == 0.8


def test_averages_another_player(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.0, player="discriminator")
    gan, _, _ = trained(tmp_path, ema)
    assert ema.n_averaged == gan.updates["discriminator"].steps == 30
    assert_equal_leaves(ema.averaged, dict(gan.discriminator.state_dict()))


def test_a_new_run_starts_a_new_average(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9)
    trained(tmp_path, ema)
    trained(tmp_path, ema, max_epochs=1)
    assert ema.n_averaged == 4
    assert math.isclose(ema.decay_at(0), 0.9)
