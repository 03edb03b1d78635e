"""Two real processes (gloo) train as one process does on the concatenated batches."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, FSDPStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support import PROGRAMS
from support.state import assert_same
from support.toy import SharedToyGAN, ToyGAN, quiet_trainer, toy_loader, weights

from univnet.gan import ExponentialMovingAverage, Updates


def two_ranks(folder: Path, k_generator: int, k_discriminator: int, how: str) -> list[dict[str, Any]]:
    script = PROGRAMS / "ddp_run.py"
    command = [sys.executable, script, folder, str(k_generator), str(k_discriminator), how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize(
    ("k_generator", "k_discriminator", "how"),
    [(4, 4, "count"), (1, 4, "name"), (2, 1, "shared"), (4, 3, "resume")],
)
def test_two_ranks_equal_one_on_concatenated_batches(
    k_generator: int, k_discriminator: int, how: str, tmp_path: Path
) -> None:
    ranks = two_ranks(tmp_path, k_generator, k_discriminator, how)
    kind = SharedToyGAN if how == "shared" else ToyGAN
    alone = kind(Updates(k_generator, clip_norm=1.0), Updates(k_discriminator))
    average = ExponentialMovingAverage(0.9)
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[average]).fit(alone, toy_loader(80, batch_size=8))
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    torch.testing.assert_close(ranks[0]["weights"], weights(alone), rtol=1e-12, atol=1e-14)
    assert ranks[0]["windows"] == {name: player.steps for name, player in alone.updates.items()}
    if how in ("name", "shared"):
        assert_same(ranks[0]["average"], ranks[1]["average"])
        torch.testing.assert_close(ranks[0]["average"], dict(average.averaged), rtol=1e-12, atol=1e-14)
    if how == "count":
        calls = ranks[0]["calls"]
        assert len(calls) > 1
        assert set(calls.values()) == {sum(ranks[0]["windows"].values())}  # every bucket once a window


def test_a_strategy_that_cannot_train_two_players_is_refused(tmp_path: Path) -> None:
    wrong = {"strategy": DDPStrategy(find_unused_parameters=False), "devices": 1}
    with pytest.raises(MisconfigurationException, match="strategy=ddp"):
        quiet_trainer(tmp_path, **wrong).fit(ToyGAN(), toy_loader())
    assert not torch.distributed.is_initialized()  # refused before the ranks meet
    module = ToyGAN()
    module._trainer = type("Trainer", (), {"strategy": object.__new__(FSDPStrategy)})()
    with pytest.raises(MisconfigurationException, match="FSDPStrategy cannot train two players"):
        module.setup("fit")
