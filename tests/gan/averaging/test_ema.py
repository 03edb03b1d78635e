"""The exponential moving average is torch's, fed by hand."""

import math
from pathlib import Path

import pytest
import torch
from support.averages import fed, trained
from support.state import assert_equal_leaves
from support.toy import weights
from torch.optim.swa_utils import get_ema_multi_avg_fn

from univnet.gan import ExponentialMovingAverage


@pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 2)])
def test_ema_is_torchs_fed_by_hand(every: int, start: int, tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9, update_every_n_steps=every, update_starting_at_step=start)
    _, watch, _ = trained(tmp_path, ema)
    taken = watch.updates[start + every - 1 :: every]
    assert ema.n_averaged == len(taken) == (24 - start) // every
    assert_equal_leaves(ema.averaged, fed(taken, multi_avg_fn=get_ema_multi_avg_fn(0.9)))


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
