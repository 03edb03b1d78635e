"""What users of Lightning do every day, on the command line: it works, or one line says why not."""

import copy
import io
import pickle
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.runs import events, load, steps

from univnet import UnivNet, Vocoder
from univnet.cli import main

CALLBACKS = "lightning.pytorch.callbacks."
NO_VALIDATION = ["--trainer.limit_val_batches", "0"]


def add(callback: str, **options: Any) -> list[str]:
    found = [f"--trainer.callbacks+={CALLBACKS}{callback}"]
    for name, value in options.items():
        found += [f"--trainer.callbacks.{name}", str(value)]
    return found


@pytest.fixture
def fit(config: Path, tmp_path: Path) -> Callable[..., Path]:
    """Train, and return the folder of the run's checkpoints."""

    def run(*options: str) -> Path:
        main(["fit", "--config", str(config), "--trainer.logger.init_args.save_dir", str(tmp_path), *options])
        return tmp_path / "small" / "version_0" / "checkpoints"

    return run


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*.ckpt")}


@pytest.mark.parametrize("share", ["2", "0.5"])
def test_overfitting_keeps_to_a_few_batches(fit: Callable[..., Path], share: str) -> None:
    last = load(fit("--trainer.overfit_batches", share, "--trainer.max_steps", "5", *NO_VALIDATION) / "last.ckpt")
    assert last["global_step"] == 5
    assert last["gan"]["position"]["epoch"] == (2 if share == "2" else 1)


@pytest.mark.parametrize("bar", ["RichProgressBar", "TQDMProgressBar"])
def test_another_bar_takes_the_place_of_ours(
    fit: Callable[..., Path], bar: str, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(*add(bar), *NO_VALIDATION)
    assert "generator/loss" in capsys.readouterr().out


@pytest.mark.parametrize(
    "callback",
    [
        add("Timer", duration="00:00:10:00"),
        add("OnExceptionCheckpoint", dirpath="unused"),
        add("LearningRateMonitor", logging_interval="step"),
        add("ModelSummary"),
        add("LambdaCallback"),
    ],
    ids=["timer", "exception", "rates", "summary", "lambda"],
)
def test_callbacks_of_lightnings_serve(
    fit: Callable[..., Path], callback: list[str], recwarn: pytest.WarningsRecorder
) -> None:
    checkpoints = fit(*callback, *NO_VALIDATION, "--trainer.max_steps", "2")
    assert load(checkpoints / "last.ckpt")["global_step"] == 2
    assert not [each for each in recwarn if "without a model" in str(each.message)]
    if "LearningRateMonitor" in str(callback):
        read = events(checkpoints.parent)
        [tag] = [tag for tag in read.Tags()["scalars"] if tag.startswith("lr-") and not tag.endswith("-1")]
        assert steps(read, tag) == [0, 1]


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        (["--checkpoint_every.every_n_epochs", "1"], {"step_6.ckpt", "step_12.ckpt"}),
        (["--checkpoint_every.every_n_epochs", "2"], {"step_12.ckpt"}),
        (["--checkpoint_every.train_time_interval", "1:00:00"], set()),
        (
            ["--checkpoint_every.every_n_train_steps", "3", "--checkpoint_every.save_top_k", "2"],
            {"step_9.ckpt", "step_12.ckpt"},
        ),
        (["--checkpoint_every.every_n_train_steps", "4", "--checkpoint_every.save_top_k", "1"], {"step_12.ckpt"}),
    ],
)
def test_checkpoints_by_epoch_by_time_and_the_last_few(
    fit: Callable[..., Path], options: Sequence[str], kept: set[str]
) -> None:
    assert files(fit(*options, "--trainer.max_steps", "12", *NO_VALIDATION)) == {"last.ckpt", *kept}


def test_64_bit_trains(fit: Callable[..., Path]) -> None:
    last = load(fit("--trainer.precision", "64-true", "--trainer.val_check_interval", "1") / "last.ckpt")
    weights = [value for name, value in last["state_dict"].items() if name.startswith("generator.")]
    assert {value.dtype for value in weights} == {torch.float64}


def test_barebones_trains_and_writes_nothing(
    config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    main(["fit", "--config", str(config), "--trainer.barebones", "true", "--trainer.max_steps", "2"])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--trainer.precision", "bf16-true"], "precision bf16-true: the losses' Fourier transforms"),
        (["--trainer.precision", "16-true"], "use 16-mixed"),
        (add("LearningRateFinder"), "LearningRateFinder: use the verb find-lr"),
        (add("StochasticWeightAveraging", swa_lrs="1e-3"), "univnet.gan.StochasticWeightAveraging"),
        (add("EMAWeightAveraging"), "univnet.gan.ExponentialMovingAverage"),
        (add("BatchSizeFinder"), "BatchSizeFinder: use the verb find-batch-size"),
        (["--trainer.gradient_clip_algorithm", "norm"], "set model.generator_updates.clip_norm"),
        (["--trainer.strategy", "deepspeed"], "deepspeed"),
        (["--model.generator_lr", ".nan"], "generator_lr must be a positive finite number, got nan"),
        (["--model.generator_lr", "nan"], "model.generator_lr: expected float, got nan"),
        (["--model.discriminator_lr", ".inf"], "discriminator_lr must be a positive finite number, got inf"),
        (["--model.discriminator_lr", "0"], "discriminator_lr must be a positive finite number, got 0.0"),
        (["--checkpoint_every.train_time_interval", "0:00:00"], "give H:MM:SS"),
    ],
)
def test_refused_before_data_are_read_and_a_folder_is_made(
    refused: Callable[..., str], config: Path, tmp_path: Path, options: Sequence[str], told: str
) -> None:
    argv = ["fit", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path / "runs"]
    assert told in refused(*argv, "--data.root", "nowhere", *options)  # where there are no data to read
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("monitor", ["val/sftt", "generator/lss"])
def test_a_misspelt_monitor_is_told(refused: Callable[..., str], config: Path, tmp_path: Path, monitor: str) -> None:
    argv = ["fit", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path, "--trainer.max_steps", 4]
    told = refused(*argv, *add("EarlyStopping", monitor=monitor), "--trainer.val_check_interval", 1)
    assert f"no metric {monitor!r} is logged" in told
    assert "generator/loss, generator/stft" in told


@pytest.mark.parametrize("none", [["--data.validation", "0"], NO_VALIDATION], ids=["no recordings", "no batches"])
def test_validate_with_nothing_to_measure_says_so(
    refused: Callable[..., str], trained: SimpleNamespace, config: Path, none: list[str]
) -> None:
    argv = ["validate", "--config", config, "--ckpt_path", trained.checkpoints / "last.ckpt"]
    assert "validate has nothing to measure" in refused(*argv, *none)


@pytest.mark.parametrize("steps_wanted", [3, 7])
def test_a_run_that_is_over_says_so(
    fit: Callable[..., Path], trained: SimpleNamespace, caplog: pytest.LogCaptureFixture, steps_wanted: int
) -> None:
    last = trained.checkpoints / "last.ckpt"
    fit("--ckpt_path", str(last), "--trainer.max_steps", str(steps_wanted), "--model.generator_updates.accumulate", "2")
    told = f"univnet: the checkpoint is of update 7 and trainer.max_steps is {steps_wanted}: there is nothing left"
    assert [line for line in caplog.messages if line.startswith(told)]


class TestInPython:
    def test_a_vocoder_is_copied_and_pickled(self, trained: SimpleNamespace) -> None:
        vocoder = Vocoder.from_checkpoint(trained.checkpoints / "last.ckpt")
        mel = torch.full((1, 20, 30), -5.0)
        audio, saved = vocoder(mel, seed=0), io.BytesIO()
        torch.save(vocoder, saved)
        saved.seek(0)
        others = [copy.deepcopy(vocoder), pickle.loads(pickle.dumps(vocoder)), torch.load(saved, weights_only=False)]
        assert all(torch.equal(other(mel, seed=0), audio) for other in others)

    def test_a_module_is_built_from_its_checkpoint_alone(self, trained: SimpleNamespace) -> None:
        path = trained.checkpoints / "last.ckpt"
        module, saved = UnivNet.load_from_checkpoint(path), load(path)["state_dict"]
        state = module.state_dict()
        assert state.keys() == saved.keys()
        assert all(torch.equal(value, saved[name]) for name, value in state.items())
        changed = UnivNet.load_from_checkpoint(path, generator_lr=3e-5, stft_weight=45.0)
        assert (changed.hparams["generator_lr"], changed.stft_weight) == (3e-5, 45.0)
        assert module.hparams["generator_lr"] == 1e-4
        assert copy.deepcopy(module).generator.config == module.generator.config

    def test_what_is_no_checkpoint_of_it_is_refused(self, tmp_path: Path) -> None:
        torch.save({"state_dict": {}}, tmp_path / "other.ckpt")
        with pytest.raises(ValueError, match="not a checkpoint that univnet's training wrote"):
            UnivNet.load_from_checkpoint(tmp_path / "other.ckpt")
        with pytest.raises(FileNotFoundError):
            UnivNet.load_from_checkpoint(tmp_path / "nowhere.ckpt")
