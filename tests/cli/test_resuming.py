"""What the command line says on resuming is what happens, or is refused; ``config-resumed.yaml`` records it."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from support.runs import ACCUMULATE, load

from univnet import UnivNet
from univnet.cli import main

SCHEDULED = ["--model.generator_schedule.scheduler", "torch.optim.lr_scheduler.ExponentialLR"]
SCHEDULED += ["--model.generator_schedule.scheduler.gamma", "0.5"]
AVERAGED = ["--trainer.callbacks+=univnet.gan.ExponentialMovingAverage", "--trainer.callbacks.decay", "0.9"]


class Resume:
    """Goes on with a copy of a run in a folder of its own; ``last`` and ``recorded`` are what that leaves."""

    def __init__(self, folder: Path, config: Path, first: Path) -> None:
        shutil.copytree(first.parents[1], folder / "runs")
        self.run = folder / "runs" / first.parent.name / first.name
        self.options = ["fit", "--config", str(config), "--trainer.logger.init_args.save_dir", str(folder / "runs")]
        self.options += ["--trainer.limit_val_batches", "0", "--ckpt_path", "last"]

    def __call__(self, *options: str) -> None:
        main([*self.options, *options])

    @property
    def last(self) -> dict[str, Any]:
        return load(self.run / "checkpoints" / "last.ckpt")

    @property
    def recorded(self) -> dict[str, Any]:
        return yaml.safe_load(max(self.run.glob("config-resumed*.yaml")).read_text())


def first_run(folder: Path, config: Path, *options: str) -> Path:
    argv = ["fit", "--config", str(config), "--trainer.max_steps", "2", "--trainer.limit_val_batches", "0", *options]
    main([*argv, "--trainer.logger.init_args.save_dir", str(folder), "--trainer.logger.init_args.name", "small"])
    return folder / "small" / "version_0"


@pytest.fixture(scope="module")
def plain(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return first_run(tmp_path_factory.mktemp("plain"), config)


@pytest.fixture
def resume(tmp_path: Path, config: Path, plain: Path) -> Resume:
    return Resume(tmp_path, config, plain)


def rates(checkpoint: dict[str, Any]) -> list[float]:
    return [group["lr"] for state in checkpoint["optimizer_states"] for group in state["param_groups"]]


MORE = ["--trainer.max_steps", "3"]


def test_a_rate_given_wins_and_is_recorded(resume: Resume) -> None:
    resume(*MORE, "--model.generator_lr", "5e-6")
    assert rates(resume.last) == [5e-6, 1e-4]
    assert resume.recorded["model"]["generator_lr"] == 5e-6
    resume("--trainer.max_steps", "4")  # and stays, also where the configuration says otherwise
    assert rates(resume.last) == [5e-6, 1e-4]
    assert resume.recorded["model"]["generator_lr"] == 5e-6


def test_a_second_config_speaks_for_the_user(resume: Resume, config: Path, tmp_path: Path) -> None:
    changed = yaml.safe_load(config.read_text())
    changed["model"] |= {"generator_lr": 3e-5, "discriminator_lr": 3e-5}
    (tmp_path / "edited.yaml").write_text(yaml.safe_dump(changed))
    (tmp_path / "second.yaml").write_text("model: {discriminator_lr: 7.0e-5}")
    resume.options[2] = str(tmp_path / "edited.yaml")
    with pytest.warns(UserWarning, match="model.generator_lr stays 0.0001, as in the checkpoint"):
        resume(*MORE, "--config", str(tmp_path / "second.yaml"))
    assert rates(resume.last) == [1e-4, 7e-5]
    assert resume.recorded["model"]["generator_lr"] == 1e-4
    assert resume.recorded["model"]["discriminator_lr"] == 7e-5


def test_a_running_schedule_goes_on_from_the_new_rate(config: Path, tmp_path: Path) -> None:
    resume = Resume(tmp_path / "b", config, first_run(tmp_path / "a", config, *SCHEDULED))
    assert rates(resume.last)[0] == pytest.approx(1e-4 / 4)
    resume(*MORE, *SCHEDULED, "--model.generator_lr", "8e-4")
    assert rates(resume.last)[0] == pytest.approx(8e-4 / 8)
    assert resume.last["lr_schedulers"][0]["base_lrs"] == [8e-4]


def test_numbers_of_the_optimizer_change_and_its_state_stays(resume: Resume) -> None:
    before = resume.last["optimizer_states"][0]["state"][0]["step"]
    optimizer = ["--model.generator_optimizer", "torch.optim.AdamW", "--model.generator_optimizer.weight_decay", "0.3"]
    resume(*MORE, *optimizer, "--model.generator_optimizer.betas", "[0.4, 0.9]")
    [group] = resume.last["optimizer_states"][0]["param_groups"]
    assert (group["weight_decay"], tuple(group["betas"])) == (0.3, (0.4, 0.9))
    assert resume.last["optimizer_states"][0]["state"][0]["step"] == before + 1


def test_windows_clipping_and_decay_are_those_given(resume: Resume) -> None:
    resume(*MORE, *ACCUMULATE, "--model.discriminator_updates.clip_norm", "0.01", *AVERAGED)
    players = resume.last["gan"]["players"]
    assert (players["generator"]["steps"], players["generator"]["micro_batches"]) == (3, 4)
    assert players["discriminator"]["report"]["clipped"] == 1


@pytest.mark.parametrize(
    ("option", "value", "shape", "goes_on"),
    [
        ("batch_size", "2", (2, 1, 2048), (0, 3)),  # as many batches as were made, of the new size, are left out
        ("batch_size", "4", (4, 1, 2048), (0, 1)),  # the epoch has no more of these: its first one ends it
        ("segment_length", "4096", (1, 1, 4096), (0, 3)),
    ],
)
def test_another_batch_or_segment_takes_effect_and_the_place_in_the_epoch_stays(
    resume: Resume,
    monkeypatch: pytest.MonkeyPatch,
    option: str,
    value: str,
    shape: tuple[int, ...],
    goes_on: tuple[int, int],
) -> None:
    usual, shapes = UnivNet.generate, list[torch.Size]()

    def generate(self: Any, batch: Any) -> Any:
        shapes.append(batch["audio"].shape)
        return usual(self, batch)

    monkeypatch.setattr(UnivNet, "generate", generate)
    assert place(resume.last) == (0, 2)
    resume(*MORE, f"--data.{option}", value)
    assert place(resume.last) == goes_on
    assert shapes == [shape]
    assert resume.recorded["data"][option] == int(value)


def place(checkpoint: dict[str, Any]) -> tuple[int, int]:
    """Return the loader's epoch and the number of batches made in it."""
    [state] = checkpoint["loops"]["fit_loop"]["state_dict"]["combined_loader"]
    return state["epoch"], state["position"]


def test_where_segments_of_another_length_make_another_order_a_warning_says_so(config: Path, tmp_path: Path) -> None:
    seconds = ["--data.epoch", "seconds"]
    resume = Resume(tmp_path / "b", config, first_run(tmp_path / "a", config, *seconds))
    with pytest.warns(UserWarning, match=r"The data set had \d+ items when the checkpoint was written"):
        resume(*MORE, *seconds, "--data.segment_length", "4096")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--model.generator_optimizer", "torch.optim.SGD"], "model.generator_optimizer: another optimizer"),
        (["--model.discriminator_optimizer", "torch.optim.Adam"], "model.discriminator_optimizer: another optimizer"),
        (
            ["--model.generator_optimizer", "torch.optim.AdamW", "--model.generator_optimizer.amsgrad", "true"],
            "model.generator_optimizer.amsgrad: another optimizer",
        ),
        (SCHEDULED, "model.generator_schedule: the schedule goes on from the checkpoint"),
        (["--seed_everything", "7"], "seed_everything: the random numbers go on"),
        (["--trainer.precision", "64-true"], "trainer.precision: 64-true cannot go on from 32-true"),
        (["--trainer.precision", "16-mixed"], "trainer.precision: 16-mixed cannot go on from 32-true"),
        (["--model.generator.init_args.channels", "6"], "generator.channels is 4 in the checkpoint and 6 here"),
    ],
)
def test_what_cannot_be_carried_on_is_refused(
    refused: Callable[..., str], resume: Resume, options: Sequence[str], told: str
) -> None:
    before = sorted(resume.run.rglob("config*")), resume.last["global_step"]
    assert told in refused(*resume.options, *MORE, *options)
    assert (sorted(resume.run.rglob("config*")), resume.last["global_step"]) == before


def test_all_refusals_are_told_at_once(refused: Callable[..., str], resume: Resume) -> None:
    told = refused(*resume.options, *MORE, "--seed_everything", "7", "--model.generator_optimizer", "torch.optim.SGD")
    assert "seed_everything" in told
    assert "model.generator_optimizer" in told


def test_the_same_values_given_again_change_nothing(resume: Resume) -> None:
    resume(*MORE, "--model.generator_lr", "1e-4", "--seed_everything", "1234", "--trainer.precision", "32-true")
    assert rates(resume.last) == [1e-4, 1e-4]


def test_the_first_runs_seed_goes_on(config: Path, tmp_path: Path) -> None:
    resume = Resume(tmp_path / "b", config, first_run(tmp_path / "a", config, "--seed_everything", "7"))
    resume(*MORE)
    assert resume.recorded["seed_everything"] == 7


def test_time_counts_afresh(resume: Resume) -> None:
    last = resume.last
    last["callbacks"]["Timer"] = {"time_elapsed": {"train": 3600.0, "sanity_check": 0, "validate": 0, "test": 0}}
    torch.save(last, resume.run / "checkpoints" / "last.ckpt")
    resume(*MORE, "--trainer.max_time", "00:00:10:00")
    assert resume.last["global_step"] == 3
    assert resume.last["callbacks"]["Timer"]["time_elapsed"]["train"] < 600


def test_a_checkpoint_of_an_earlier_version_resumes_and_its_rates_change(resume: Resume) -> None:
    last = resume.last
    del last["options"]
    torch.save(last, resume.run / "checkpoints" / "last.ckpt")
    resume(*MORE, "--model.discriminator_lr", "2e-5")
    assert rates(resume.last) == [1e-4, 2e-5]
    assert "options" in resume.last


def test_averages_are_kept_without_their_callback(
    config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stopping = ["--trainer.callbacks+=EarlyStopping", "--trainer.callbacks.monitor", "generator/loss"]
    stopping += ["--trainer.callbacks.patience", "9"]
    resume = Resume(tmp_path / "b", config, first_run(tmp_path / "a", config, *AVERAGED, *stopping))
    before = resume.last
    [early] = [key for key in before["callbacks"] if key.startswith("EarlyStopping")]
    resume(*MORE)
    after = resume.last
    assert after["global_step"] == 3
    kept, had = (each["averaged"]["generator"]["ema"] for each in (after, before))
    assert kept["updates"] == had["updates"] == 2
    assert all(torch.equal(value, had["weights"][name]) for name, value in kept["weights"].items())
    assert after["callbacks"][early] == before["callbacks"][early]
    assert "the average (ema) of the generator's weights stays that of its update 2" in caplog.text
    assert early in caplog.text
    resume("--trainer.max_steps", "4", *AVERAGED)
    assert resume.last["averaged"]["generator"]["ema"]["updates"] == 4
