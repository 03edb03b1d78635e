"""``univnet fit`` and ``univnet validate``: what a run leaves behind, how it ends and how it is resumed."""

import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from support.runs import ACCUMULATE, TRAIN, events, load, steps

from univnet import Generator
from univnet.cli import main


class TestARun:
    def test_the_axis_of_every_scalar_is_generator_updates(self, trained: SimpleNamespace) -> None:
        terms = ("loss", "stft", "spectral_convergence", "log_magnitude", "adversarial", "lr", "gradient_norm")
        for tag in [f"generator/{term}" for term in terms] + ["discriminator/loss", "discriminator/lr"]:
            assert steps(trained.events, tag) == [1, 2, 3, 4, 5, 6, 7], tag
        for sub_discriminator in ("mrd_512", "mrd_256", "mpd_2", "mpd_3"):
            assert steps(trained.events, f"discriminator/{sub_discriminator}") == [1, 2, 3, 4, 5, 6, 7]
            assert steps(trained.events, f"generator/{sub_discriminator}") == [1, 2, 3, 4, 5, 6, 7]
        assert steps(trained.events, "throughput/audio_seconds_per_second") == [1, 2, 3, 4, 5, 6, 7]
        assert all(event.value > 0 for event in trained.events.Scalars("throughput/audio_seconds_per_second"))

    def test_the_discriminator_made_an_update_a_micro_batch(self, trained: SimpleNamespace) -> None:
        made = [event.value for event in trained.events.Scalars("discriminator/updates")]
        assert made == [2, 4, 6, 8, 10, 12, 14]

    def test_validation_is_every_four_micro_batches_and_logged_at_the_update_reached(
        self, trained: SimpleNamespace
    ) -> None:
        for tag in ("val/stft", "val/mel", "val/spectral_convergence", "val/log_magnitude"):
            assert steps(trained.events, tag) == [2, 4, 6]

    def test_speech_is_heard_and_seen(self, trained: SimpleNamespace) -> None:
        read = trained.events
        assert [event.step for event in read.Audio("sample_0/real")] == [2]  # it never changes
        generated = read.Audio("sample_0/generated")
        assert [event.step for event in generated] == [2, 4, 6]
        assert {event.sample_rate for event in generated} == {16000}
        assert {event.length_frames for event in generated} == {16000 // 256 * 256}
        assert len({event.encoded_audio_string for event in generated}) == 3  # the vocoder has moved on
        assert [event.step for event in read.Images("sample_0/mel")] == [2, 4, 6]
        assert "sample_1/real" not in read.Tags()["audio"]

    def test_it_keeps_the_best_the_last_and_every_third(self, trained: SimpleNamespace) -> None:
        assert {path.name for path in trained.checkpoints.iterdir()} == {
            "best.ckpt",
            "last.ckpt",
            "step_3.ckpt",
            "step_6.ckpt",
        }
        best = min(trained.events.Scalars("val/stft"), key=lambda event: event.value)
        reached = {name: load(trained.checkpoints / f"{name}.ckpt")["global_step"] for name in ("best", "last")}
        assert reached == {"best": best.step, "last": 7}
        assert load(trained.checkpoints / "step_3.ckpt")["global_step"] == 3

    def test_it_says_what_is_of_use_and_nothing_else(self, trained: SimpleNamespace) -> None:
        folder = str(trained.folder)
        said = [line for line in trained.err.replace("\r", "\n").splitlines() if line.strip()]
        assert len(said) <= 5, said
        assert next(line for line in said if line.startswith("univnet: generator of 0.0")).endswith(f"in {folder}")
        assert all(line.startswith(("univnet", "GPU available", "`Trainer.fit` stopped")) for line in said)
        assert said[-2:] == [
            f"univnet: the last checkpoint is {trained.checkpoints / 'last.ckpt'}; to hear what was trained:",
            f"univnet synthesize --checkpoint {trained.checkpoints / 'best.ckpt'} --output out FILES",
        ]

    def test_the_bar_shows_both_losses_and_the_time_left_to_max_steps(self, trained: SimpleNamespace) -> None:
        last = trained.out.replace("\r", "\n").strip().splitlines()[-1]
        assert " 7/7 [" in last
        for expected in ("Epoch 2", "generator/loss=", "discriminator/loss=", "<00:0"):
            assert expected in last

    def test_its_whole_configuration_is_kept(self, trained: SimpleNamespace) -> None:
        kept = yaml.safe_load((trained.folder / "config.yaml").read_text())
        assert kept["model"]["generator_updates"]["accumulate"] == 2
        assert kept["model"]["discriminator_updates"]["accumulate"] == 1
        assert kept["trainer"]["max_steps"] == 7
        assert kept["seed_everything"] == 1234


def test_resuming_the_last_run_goes_on_in_its_folder(trained: SimpleNamespace, config: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(trained.folder.parents[1], runs)
    folder = runs / "small" / "version_0"
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != "last.ckpt"}
    argv = ["fit", "--config", str(config), *ACCUMULATE, "--trainer.logger.init_args.save_dir", str(runs)]
    main([*argv, "--trainer.max_steps", "8", "--ckpt_path", "last"])
    main([*argv, "--trainer.max_steps", "9", "--ckpt_path", "last"])
    assert [path.name for path in (runs / "small").iterdir()] == ["version_0"]
    assert {path.name for path in folder.glob("config*")} == {
        "config.yaml",
        "config-resumed.yaml",
        "config-resumed-2.yaml",
    }
    assert all(path.read_bytes() == content for path, content in before.items() if path.name != "best.ckpt")
    last = load(folder / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 9
    assert {name: player["steps"] for name, player in last["gan"]["players"].items()} == {
        "generator": 9,
        "discriminator": 18,
    }
    assert steps(events(folder), "generator/loss") == [1, 2, 3, 4, 5, 6, 7, 8, 9]
    assert steps(events(folder), "val/stft") == [2, 4, 6, 8]


def test_the_way_on_that_a_failed_run_names_leads_into_its_own_folder(
    trained: SimpleNamespace,
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Also where an older run of the same name has made more updates."""
    runs = tmp_path / "runs" / "small"
    shutil.copytree(trained.folder, runs / "version_0")
    usual, calls = Generator.forward, []

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            raise MemoryError
        return usual(self, *args, **kwargs)

    argv = ["fit", "--config", str(config), "--trainer.logger.init_args.save_dir", str(runs.parent)]
    argv += ["--trainer.limit_val_batches", "0", "--checkpoint_last.every_n_train_steps", "1"]
    monkeypatch.setattr(Generator, "forward", forward)
    with caplog.at_level("INFO"), pytest.raises(SystemExit):
        main([*argv, "--trainer.max_steps", "9"])
    monkeypatch.undo()
    [named] = re.findall(r"is of update 2: go on with (.*)", caplog.text)
    assert named == f"--ckpt_path {runs / 'version_1'}"
    main([*argv, "--trainer.max_steps", "3", *named.split()])
    assert load(runs / "version_1" / "checkpoints" / "last.ckpt")["global_step"] == 3
    assert load(runs / "version_0" / "checkpoints" / "last.ckpt")["global_step"] == 7
    assert {path.name for path in runs.iterdir()} == {"version_0", "version_1"}


def stopped(command: list[str], checkpoints: Path, stop: Callable[[Any], None]) -> tuple[int, str]:
    """Start a run, ``stop`` it once it has made three updates, and return its exit status and what it said."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        until = time.monotonic() + 60
        while not (checkpoints / "step_3.ckpt").exists():
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)
        assert not (checkpoints / "last.ckpt").exists()
        stop(process)
        _, err = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, err


def test_ctrl_c_saves_the_state_at_the_end_of_a_micro_batch(config: Path, tmp_path: Path) -> None:
    argv = ["fit", "--config", str(config), *ACCUMULATE, "--checkpoint_every.every_n_train_steps", "3"]
    argv += ["--trainer.limit_val_batches", "0"]
    command = [
        *TRAIN,
        *argv,
        "--trainer.max_steps",
        "100000",
        "--trainer.logger.init_args.save_dir",
        str(tmp_path / "a"),
    ]
    checkpoints = tmp_path / "a" / "small" / "version_0" / "checkpoints"
    status, err = stopped(command, checkpoints, lambda process: process.send_signal(signal.SIGINT))
    assert status != 0
    assert "Traceback" not in err
    assert f"go on with --ckpt_path {checkpoints.parent}\n" in err
    interrupted = load(checkpoints / "last.ckpt")
    step = interrupted["global_step"]
    assert step >= 3
    main([*argv, "--trainer.max_steps", str(step), "--trainer.logger.init_args.save_dir", str(tmp_path / "b")])
    uninterrupted = load(tmp_path / "b" / "small" / "version_0" / "checkpoints" / "last.ckpt")
    for name, value in interrupted["state_dict"].items():
        if name.startswith("generator."):
            assert torch.equal(value, uninterrupted["state_dict"][name]), name
    discriminator, generator = (interrupted["gan"]["players"][name] for name in ("discriminator", "generator"))
    assert discriminator["micro_batches"] == generator["micro_batches"]  # neither player is ahead


def test_sigterm_to_all_processes_saves_the_state(config: Path, tmp_path: Path) -> None:
    """As a cluster's scheduler ends a job: the loader's processes get the signal too."""
    command = [*TRAIN, "fit", "--config", str(config), "--trainer.max_steps", "100000", "--data.num_workers", "1"]
    command += ["--checkpoint_every.every_n_train_steps", "3", "--trainer.limit_val_batches", "0"]
    command += ["--trainer.logger.init_args.save_dir", str(tmp_path)]
    checkpoints = tmp_path / "small" / "version_0" / "checkpoints"
    _, err = stopped(command, checkpoints, lambda process: os.killpg(process.pid, signal.SIGTERM))
    assert "Traceback" not in err
    assert load(checkpoints / "last.ckpt")["global_step"] >= 3


def test_a_csv_logger_serves_as_well_and_keeps_its_rows_when_resumed(config: Path, tmp_path: Path) -> None:
    argv = ["fit", "--config", str(config), "--trainer.val_check_interval", "2"]
    argv += ["--trainer.logger", "lightning.pytorch.loggers.CSVLogger", "--trainer.logger.save_dir", str(tmp_path)]
    main([*argv, "--trainer.max_steps", "2"])
    folder = tmp_path / "small" / "version_0"
    rows = (folder / "metrics.csv").read_text()
    assert {"step", "generator/loss", "discriminator/mpd_2", "val/stft"} <= set(rows.splitlines()[0].split(","))
    main([*argv, "--trainer.max_steps", "3", "--ckpt_path", "last"])
    assert (folder / "metrics-1.csv").read_text() == rows
    header, *later = (line.split(",") for line in (folder / "metrics.csv").read_text().splitlines())
    assert {row[header.index("step")] for row in later} == {"3"}


def test_the_bar_and_the_checkpoints_can_be_switched_off(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    off = ["--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false"]
    with caplog.at_level("INFO"):
        main(["fit", "--config", str(config), *off, "--trainer.logger.save_dir", str(tmp_path)])
    assert "it/s" not in capsys.readouterr().out
    assert "logs and checkpoints in" in caplog.text
    assert "the last checkpoint" not in caplog.text
    assert list(tmp_path.rglob("events*"))
    assert not list(tmp_path.rglob("*.ckpt"))


def test_validate_measures_the_checkpoint_and_writes_none(
    trained: SimpleNamespace, config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    best = load(trained.checkpoints / "best.ckpt")
    argv = ["validate", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path]
    main([str(arg) for arg in [*argv, "--ckpt_path", trained.checkpoints / "best.ckpt"]])
    [logged] = events(tmp_path / "small" / "version_0").Scalars("val/stft")
    kept = next(event.value for event in trained.events.Scalars("val/stft") if event.step == best["global_step"])
    assert logged.value == pytest.approx(kept, rel=1e-6)
    assert not list(tmp_path.rglob("*.ckpt"))
