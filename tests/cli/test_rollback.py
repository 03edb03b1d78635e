"""By option, a run that turns NaN goes back to its last good checkpoint with that player's rate halved."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.runs import load

from univnet import UnivNet
from univnet.cli import main


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, float], None]:
    """From update 3 on, a player's loss is NaN where its rate exceeds a limit."""

    def poison(player: str, limit: float) -> None:
        usual = getattr(UnivNet, f"{player}_loss")

        def loss(self: UnivNet, *args: Any) -> Any:
            terms = usual(self, *args)
            optimizer = self.updates[player].optimizer
            assert optimizer is not None
            high = optimizer.param_groups[0]["lr"] > limit and self.global_step >= 3
            return {**terms, "loss": terms["loss"] * torch.nan} if high else terms

        monkeypatch.setattr(UnivNet, f"{player}_loss", loss)

    return poison


@pytest.fixture
def argv(config: Path, tmp_path: Path) -> list[str]:
    options = ["--trainer.max_steps", "6", "--trainer.limit_val_batches", "0", "--checkpoint_last.every_n_train_steps"]
    options += ["1", "--model.generator_updates.max_nonfinite", "2", "--model.discriminator_updates.max_nonfinite", "2"]
    return ["fit", "--config", str(config), "--trainer.logger.init_args.save_dir", str(tmp_path), *options]


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_the_rate_is_halved_until_it_is_low_enough(
    argv: list[str], tmp_path: Path, poisoned: Callable[..., None], player: str, caplog: pytest.LogCaptureFixture
) -> None:
    poisoned(player, 3e-5)
    main([*argv, "--rollbacks", "3", "--checkpoint_every.every_n_train_steps", "2"])
    assert [folder.name for folder in (tmp_path / "small").iterdir()] == ["version_0"]
    run = tmp_path / "small" / "version_0"
    last = load(run / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 6
    found = [state["param_groups"][0]["lr"] for state in last["optimizer_states"]]
    rates = dict(zip(last["gan"]["players"], found, strict=True))
    assert rates == {**dict.fromkeys(rates, 1e-4), player: 2.5e-5}
    recorded = yaml.safe_load((run / "config-resumed-2.yaml").read_text())
    assert recorded["model"][f"{player}_lr"] == 2.5e-5
    told = [line for line in caplog.messages if "rolls back to" in line]
    assert [f"{player}_lr halved to {rate}" in line for rate, line in zip(("5e-05", "2.5e-05"), told, strict=True)]
    assert "of update 3" in told[0] or player == "discriminator"


def test_without_the_option_or_when_used_up_the_run_ends(
    argv: list[str], poisoned: Callable[..., None], refused: Callable[..., str]
) -> None:
    poisoned("generator", 1e-9)
    assert "updates in a row had a non-finite" in refused(*argv)
    assert "updates in a row had a non-finite" in refused(*argv, "--rollbacks", "1")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--rollbacks", "-1"], "rollbacks must not be negative"),
        (["--rollbacks", "1", "--trainer.enable_checkpointing", "false"], "rollbacks need checkpoints"),
        (
            [
                *("--rollbacks", "1", "--model.generator_schedule.scheduler", "univnet.gan.CyclicalLR"),
                *("--model.generator_schedule.scheduler.base_lr", "1e-5"),
                *("--model.generator_schedule.scheduler.max_lr", "1e-4"),
            ],
            "CyclicalLR sets the rates itself",
        ),
    ],
)
def test_what_is_in_the_way_is_told_at_the_start(
    argv: list[str], refused: Callable[..., str], options: list[str], told: str
) -> None:
    assert told in refused(*argv, *options)
