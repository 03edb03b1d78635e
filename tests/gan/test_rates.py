"""Learning rates that are no rates are refused at the start, wherever they come from."""

from math import inf, nan
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import ToyGAN, quiet_trainer, toy_loader

from univnet import UnivNet
from univnet.gan import CyclicalLR, StochasticWeightAveraging


@pytest.mark.parametrize("rate", [nan, inf, -inf, -1e-4, 0.0])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_a_univnet_needs_positive_finite_rates(player: str, rate: float) -> None:
    told = rf"{player}_lr must be a positive finite number, got {rate}"
    with pytest.raises(ValueError, match=told):
        UnivNet(**{f"{player}_lr": rate})


def test_both_are_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"generator_lr must .* got nan; discriminator_lr must .* got inf"):
        UnivNet(generator_lr=nan, discriminator_lr=inf)


@pytest.mark.parametrize("rate", [nan, inf, -1.0])
@pytest.mark.parametrize(("which", "player"), [(0, "generator"), (1, "discriminator")])
def test_any_gans_optimizers_need_finite_rates(tmp_path: Path, which: int, player: str, rate: float) -> None:
    def poisoned(*optimizers: Any) -> Any:
        optimizers[which].param_groups[0]["lr"] = rate
        return optimizers

    gan = ToyGAN(schedulers=poisoned)
    before = {name: value.clone() for name, value in gan.state_dict().items()}
    with pytest.raises(ValueError, match=f"{player}: the learning rate of its optimizer must be a finite number"):
        quiet_trainer(tmp_path).fit(gan, toy_loader())
    assert all(torch.equal(value, before[name]) for name, value in gan.state_dict().items())


def test_a_warm_up_may_start_at_zero(tmp_path: Path) -> None:
    def warm_up(generator: Any, discriminator: Any) -> Any:
        rise = torch.optim.lr_scheduler.LambdaLR(generator, lambda step: step / 10)
        return (
            {"optimizer": generator, "lr_scheduler": {"scheduler": rise, "interval": "step"}},
            {"optimizer": discriminator},
        )

    trainer = quiet_trainer(tmp_path)
    trainer.fit(ToyGAN(schedulers=warm_up), toy_loader(8))
    assert trainer.global_step == 2


def test_schedules_and_averages_need_finite_rates() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1)
    with pytest.raises(ValueError, match="max_lr, which must be finite"):
        CyclicalLR(optimizer, 1e-4, inf)
    with pytest.raises(Exception, match="swa_lrs must be a positive float"):
        StochasticWeightAveraging(inf)
