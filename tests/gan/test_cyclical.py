"""CyclicalLR, against torch's CyclicLR and numpy's windows."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.optim.lr_scheduler import CyclicLR

from univnet.gan import CyclicalLR


def optimizer(groups: int = 2) -> torch.optim.Optimizer:
    parameters = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(groups)]
    return torch.optim.AdamW(parameters, lr=1.0, betas=(0.5, 0.9))


def rates(scheduler: Any, steps: int) -> np.ndarray:
    """Return (steps, groups): the rates that updates 0, 1, … of a run use."""
    seen = []
    for _ in range(steps):
        seen.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        scheduler.step()
    return np.array(seen)


@pytest.mark.parametrize("mode", ["triangular", "triangular2", "exp_range"])
@pytest.mark.parametrize(("up", "down"), [(7, None), (3, 11), (1, 1)])
@pytest.mark.parametrize("momentum", [False, True])
def test_triangular_window_equals_torchs(mode: Any, up: int, down: int | None, momentum: bool) -> None:
    options = {
        "base_lr": [1e-4, 1e-3],
        "max_lr": [1e-2, 5e-3],
        "mode": mode,
        "step_size_up": up,
        "step_size_down": down,
        "gamma": 0.97,
        "cycle_momentum": momentum,
    }
    ours, theirs = CyclicalLR(optimizer(), **options), CyclicLR(optimizer(), **options)
    np.testing.assert_allclose(rates(ours, 60), rates(theirs, 60), rtol=1e-12, atol=0)
    for mine, its in zip(ours.optimizer.param_groups, theirs.optimizer.param_groups, strict=True):
        assert mine["betas"] == pytest.approx(its["betas"], rel=1e-12)


@pytest.mark.parametrize(
    ("window", "expected"),
    [
        ("triangular", np.bartlett(21)),
        ("hann", np.hanning(21)),
        ("welch", 1 - (1 - np.bartlett(21)) ** 2),
    ],
)
def test_windows_equal_numpys(window: Any, expected: np.ndarray) -> None:
    scheduler = CyclicalLR(optimizer(1), 0.1, 0.5, window=window, step_size_up=10)
    np.testing.assert_allclose(rates(scheduler, 41)[:, 0], 0.1 + 0.4 * np.r_[expected, expected[1:]], atol=1e-15)


def test_asymmetric_half_cycles_meet_at_the_maximum() -> None:
    scheduler = CyclicalLR(optimizer(1), 0.0, 1.0, window="hann", step_size_up=4, step_size_down=10)
    cycle = rates(scheduler, 15)[:, 0]
    np.testing.assert_allclose(cycle, np.r_[np.hanning(9)[:5], np.hanning(21)[11:]], atol=1e-15)


def test_momentum_is_left_alone_unless_asked() -> None:
    scheduler = CyclicalLR(optimizer(), 1e-4, 1e-2, step_size_up=3)
    rates(scheduler, 10)
    assert all(group["betas"] == (0.5, 0.9) for group in scheduler.optimizer.param_groups)


def test_saved_and_resumed() -> None:
    make = {"base_lr": 1e-4, "max_lr": 1e-2, "window": "welch", "mode": "exp_range", "step_size_up": 5, "gamma": 0.9}
    whole, first = (CyclicalLR(optimizer(), **make) for _ in range(2))
    expected = rates(whole, 30)
    rates(first, 13)
    second = CyclicalLR(optimizer(), **make)
    second.optimizer.load_state_dict(first.optimizer.state_dict())
    second.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(rates(second, 17), expected[13:])


def test_plot_draws_the_schedule_without_moving_it() -> None:
    scheduler = CyclicalLR(optimizer(), 0.1, 0.5, window="hann", step_size_up=10)
    line = scheduler.plot(40).lines[0].get_ydata()
    assert scheduler.last_epoch == 0
    np.testing.assert_allclose(line, rates(scheduler, 41)[:, 0], atol=1e-15)


def test_every_mistake_is_reported_at_once() -> None:
    with pytest.raises(ValueError, match=r"base_lr.*window.*mode.*step sizes"):
        CyclicalLR(optimizer(), 1.0, 0.1, window="box", mode="up", step_size_up=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 groups"):
        CyclicalLR(optimizer(2), [0.1], 0.2)
