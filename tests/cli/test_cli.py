"""The command line, as its users meet it: what a run leaves behind, how it is resumed, and how mistakes are told."""

import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from support.small import write_config
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from univnet.cli import VERBS, main

TRAIN = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "train.py")]
CLIPS, HELD_OUT = 8, 2  # 6 micro-batches an epoch
ACCUMULATE = ["--model.generator_updates.accumulate", "2"]


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("cli"), CLIPS, demo)


@pytest.fixture(scope="module")
def trained(config: Path) -> SimpleNamespace:
    """A run of seven generator updates in a process of its own: two epochs and a third, ended within it."""
    command = [*TRAIN, "fit", "--config", str(config), *ACCUMULATE, "--trainer.max_steps", "7"]
    command += ["--checkpoint_every.every_n_train_steps", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    folder = config.parent / "runs" / "small" / "version_0"
    return SimpleNamespace(
        folder=folder, out=ended.stdout, err=ended.stderr, checkpoints=folder / "checkpoints", events=events(folder)
    )


def events(folder: Path) -> EventAccumulator:
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "audio": 0, "images": 0})
    return read.Reload()


def steps(read: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in read.Scalars(tag)]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line, which must end in one line on stderr and status 2; return that line."""

    def run(*argv: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in argv])
        err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("Seed", "GPU"))]
        assert ended.value.code == 2
        errors = [line for line in err if line.startswith("univnet: error: ")]
        assert len(errors) == 1, err
        assert err[-1] == errors[0]
        assert not any("Traceback" in line for line in err)
        assert len(errors[0]) < 800
        return errors[0].removeprefix("univnet: error: ")

    return run


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
        assert len(said) <= 3, said
        assert next(line for line in said if line.startswith("univnet: generator of 0.0")).endswith(f"in {folder}")
        assert all(line.startswith(("univnet: generator", "GPU available", "`Trainer.fit` stopped")) for line in said)

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
    assert "go on with --ckpt_path last" in err
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
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    off = ["--trainer.enable_progress_bar", "false", "--trainer.enable_checkpointing", "false"]
    main(["fit", "--config", str(config), *off, "--trainer.logger.save_dir", str(tmp_path)])
    assert "it/s" not in capsys.readouterr().out
    assert list(tmp_path.rglob("events*"))
    assert not list(tmp_path.rglob("*.ckpt"))


class TestMistakesAreToldInOneLine:
    def test_no_verb_lists_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 2
        listed = capsys.readouterr().err
        assert {"fit", "validate", "synthesize"} <= VERBS.keys()
        assert all(f"\n  {verb} " in listed for verb in VERBS)
        assert len(listed.splitlines()) == len(VERBS) + 2
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out == listed

    def test_no_such_verb(self, refused: Callable[..., str]) -> None:
        assert refused("train").startswith("there is no verb 'train'; give one of fit, validate, find-lr, ")

    @pytest.mark.parametrize(
        ("options", "told"),
        [
            (["--model.breadth", "3"], "unrecognized arguments: --model.breadth 3; see `univnet fit --help`"),
            (["--data.batch_size", "many"], "data.batch_size: expected int, got many; see `univnet fit --help`"),
            (["--config", "nowhere.yaml"], "nowhere.yaml"),
            (["--model.generator.init_args.channels", "x"], "model.generator: channels: expected int, got x"),
            (["--trainer.accumulate_grad_batches", "2"], "set model.generator_updates.accumulate"),
            (["--trainer.gradient_clip_val", "1"], "set model.generator_updates.clip_norm"),
            (["--ckpt_path", "last", "--trainer.logger.init_args.name", "x"], "no last.ckpt under"),
            (["--ckpt_path", "nowhere.ckpt"], "there is no checkpoint nowhere.ckpt"),
            (["--model.mel.init_args.hop_length", "200"], "mel.hop_length is 200 but the product of generator.strides"),
            (["--model.mel.init_args.n_mels", "30"], "generator.n_mels is 20 but mel.n_mels is 30: make them equal"),
            (["--data.root", "nowhere"], "There is no folder nowhere to look for audio in: check data.root"),
            (["--data.validation", str(CLIPS)], f"validation={CLIPS} leaves none of the {CLIPS} files to train on"),
            (["--data.segment_length", "1000"], "segment_length must be a multiple of the mel's hop_length=256"),
        ],
    )
    def test_options(self, refused: Callable[..., str], config: Path, options: Sequence[str], told: str) -> None:
        assert told in refused("fit", "--config", config, *options)

    def test_a_wrong_type_in_yaml(self, refused: Callable[..., str], config: Path, tmp_path: Path) -> None:
        content = yaml.safe_load(config.read_text())
        content["model"]["stft_weight"] = [1]
        (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
        told = refused("fit", "--config", tmp_path / "wrong.yaml")
        assert told.startswith("model.stft_weight: expected float, got [1]")

    def test_a_folder_without_audio(self, refused: Callable[..., str], config: Path, tmp_path: Path) -> None:
        told = refused("fit", "--config", config, "--data.root", tmp_path)
        assert told.startswith(f"The folder {tmp_path} holds no .wav, .flac, .ogg file at any depth: point data.root")

    def test_a_traceback_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIVNET_TRACEBACK", "1")
        with pytest.raises(Exception, match="there is no verb"):
            main(["train"])

    def test_another_rank_says_who_it_is(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with pytest.raises(SystemExit):
            main(["train"])
        assert capsys.readouterr().err.startswith("univnet: rank 1: error: there is no verb")


class Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def damaged(kind: str, folder: Path, good: Path) -> Path:
    path = folder / f"{kind}.ckpt"
    if kind == "malicious":
        torch.save({"state_dict": {}, "univnet": Malice(folder / "executed")}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Malice(folder / "executed"), protocol=2))
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[:-1000])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind == "empty":
        path.touch()
    else:
        torch.save({"state_dict": {"weight": torch.ones(2)}}, path)
    return path


@pytest.mark.parametrize("kind", ["malicious", "pickle", "truncated", "text", "empty", "foreign"])
def test_what_is_no_checkpoint_is_refused_and_never_run(
    kind: str, refused: Callable[..., str], trained: SimpleNamespace, config: Path, tmp_path: Path, speech_file: Path
) -> None:
    path = damaged(kind, tmp_path, trained.checkpoints / "last.ckpt")
    told = refused("synthesize", "--checkpoint", path, "--output", tmp_path / "out", speech_file)
    assert str(path) in told
    assert "give a" in told or "not a checkpoint that univnet's training wrote" in told
    if kind in ("malicious", "truncated"):
        assert refused("fit", "--config", config, "--ckpt_path", path) == told
    assert not (tmp_path / "executed").exists()


@pytest.fixture(scope="module")
def speech_file(demo: Path) -> Path:
    return sorted(demo.glob("*.flac"))[0]


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("--model.generator.init_args.channels", "6", "generator.channels is 4 in the checkpoint and 6 here"),
        ("--model.mel.init_args.f_max", "4000", "mel.f_max is 8000.0 in the checkpoint and 4000.0 here"),
        ("--model.discriminator.init_args.mrd.init_args.channels", "3", "discriminator.mrd.discriminators.mrd_"),
    ],
)
def test_a_checkpoint_of_another_model_is_refused(
    refused: Callable[..., str],
    trained: SimpleNamespace,
    config: Path,
    tmp_path: Path,
    option: str,
    value: str,
    told: str,
) -> None:
    argv = ["fit", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path, option, value]
    answer = refused(*argv, "--ckpt_path", trained.checkpoints / "last.ckpt")
    assert answer.startswith("the checkpoint is of another model: ")
    assert told in answer


class TestRecordings:
    @pytest.fixture
    def bad(self, tmp_path: Path, speech_file: Path) -> Path:
        folder = tmp_path / "recordings"
        folder.mkdir()
        rate = sf.info(speech_file).samplerate
        (folder / "text.wav").write_text("not audio")
        (folder / "nothing.wav").touch()
        sf.write(folder / "empty.wav", np.zeros(0), rate)
        sf.write(folder / "silent.wav", np.zeros(rate), rate)
        sf.write(folder / "nan.wav", np.full(rate, np.nan), rate, subtype="FLOAT")
        (folder / "cut.flac").write_bytes(speech_file.read_bytes()[:20000])
        return folder

    def test_bad_files_are_left_out_with_a_count(
        self, bad: Path, config: Path, tmp_path: Path, speech_file: Path
    ) -> None:
        speech, rate = sf.read(speech_file, dtype="float32")
        sf.write(bad / "short.wav", speech[4000:4500], rate)  # shorter than a segment, and than an FFT
        sf.write(bad / "brief.wav", speech[5000:5400], rate)
        argv = ["fit", "--config", str(config), "--data.root", str(bad), "--data.validation", "1"]
        argv += ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.val_check_interval", "1"]
        with pytest.warns(UserWarning, match="6 of 8 audio files are left out"):
            main(argv)  # one short clip is trained on and the other validated on
        assert load(tmp_path / "small" / "version_0" / "checkpoints" / "best.ckpt")["global_step"] == 1

    def test_it_is_an_error_when_none_is_left(self, bad: Path, refused: Callable[..., str], config: Path) -> None:
        told = refused("fit", "--config", config, "--data.root", bad)
        assert told.startswith("None of the 6 audio files can be used: ")
        assert "1 silent, for example" in told

    def test_short_ones_can_be_skipped(
        self, bad: Path, refused: Callable[..., str], config: Path, speech_file: Path
    ) -> None:
        speech, rate = sf.read(speech_file, dtype="float32")
        for name in ("a", "b"):
            sf.write(bad / f"{name}.wav", speech[4000:4500], rate)
        with pytest.warns(UserWarning, match="6 of 8 audio files are left out"):
            told = refused(
                "fit", "--config", config, "--data.root", bad, "--data.short", "skip", "--data.validation", 1
            )
        assert "None of the 1 files to train on is as long as a segment of 2048 samples" in told
        assert "short='pad'" in told


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


class TestSynthesize:
    def test_one_wav_an_input(self, trained: SimpleNamespace, tmp_path: Path, speech_file: Path) -> None:
        mel = tmp_path / "mel.npy"
        np.save(mel, np.full((20, 30), -5.0, dtype=np.float32))
        argv = ["synthesize", "--checkpoint", trained.checkpoints / "best.ckpt", "--output", tmp_path / "out"]
        main([str(arg) for arg in [*argv, "--pictures", speech_file, mel]])
        lengths = {path.name: sf.info(path).frames for path in (tmp_path / "out").glob("*.wav")}
        assert lengths == {f"{speech_file.stem}.wav": sf.info(speech_file).frames // 256 * 256, "mel.wav": 30 * 256}
        assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {speech_file.stem, "mel"}

    @pytest.mark.parametrize(
        ("inputs", "options", "told"),
        [
            (["nowhere.wav"], [], "there is no file nowhere.wav"),
            (["a/x.wav", "b/x.wav"], [], "would both be written to"),
            (["a/x.wav"], ["--output", "a"], "would be overwritten: give another --output folder"),
            (["a/x.wav"], ["--output", "a/x.wav"], "is a file: name a folder"),
            (["a/x.wav"], ["--device", "abacus"], "--device abacus cannot be used here"),
            (["a/x.wav"], ["--sed", "1"], "unrecognized arguments: --sed; see `univnet synthesize --help`"),
            (["empty.wav"], [], "empty.wav holds no sound"),
            (["nan.wav"], [], "nan.wav holds NaN or infinity"),
            (["text.wav"], [], "text.wav is not readable audio"),
            (["text.npy"], [], "text.npy is not a readable .npy file"),
            (["bands.npy"], [], "bands.npy has shape (80, 3); this vocoder takes (20, frames)"),
            (["words.npy"], [], "words.npy does not hold floating-point numbers"),
            ([], [], "the following arguments are required: inputs"),
        ],
    )
    def test_mistakes(
        self,
        refused: Callable[..., str],
        trained: SimpleNamespace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        inputs: list[str],
        options: list[str],
        told: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a/x.wav", "b/x.wav"):
            Path(name).parent.mkdir()
            sf.write(name, np.random.default_rng(0).normal(0, 0.1, 4000), 16000)
        sf.write("empty.wav", np.zeros(0), 16000)
        sf.write("nan.wav", np.full(4000, np.nan), 16000, subtype="FLOAT")
        for name in ("text.wav", "text.npy"):
            Path(name).write_text("neither sound nor numbers")
        np.save("bands.npy", np.zeros((80, 3), dtype=np.float32))
        np.save("words.npy", np.array([["a"]]))
        original = Path("a/x.wav").read_bytes()
        argv = ["--checkpoint", trained.checkpoints / "best.ckpt", "--output", "out", *options, *inputs]
        assert told in refused("synthesize", *argv)
        assert Path("a/x.wav").read_bytes() == original
        assert not list(Path("out").glob("*.wav")) if Path("out").exists() else True
