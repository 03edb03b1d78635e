"""The demo, whole: what `make demo` promises."""

import os
import re
import shlex
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.runs import load

from univnet.callbacks import LastCheckpoint
from univnet.cli import main
from univnet.cli.demo import HELP, PLAN

ROOT = Path(__file__).parents[2]
_TRAINER = {"max_steps": 2, "val_check_interval": 2, "limit_val_batches": 1, "enable_progress_bar": "false"}
SMALL = [each for name, value in _TRAINER.items() for each in (f"--trainer.{name}", str(value))]
SMALL += ["--data.validation", "1", "--data.batch_size", "1", "--data.num_workers", "0"]


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_the_demo_learns_to_speak(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    main(["demo", "--trainer.logger.init_args.save_dir", str(tmp_path)])
    told = capsys.readouterr().out
    before, after = map(float, re.search(r"M-STFT\s+([\d.]+) before, ([\d.]+) after", told).groups())
    assert after < 0.6 * before
    folder = tmp_path / "demo" / "version_0"
    assert (folder / "checkpoints" / "best.ckpt").exists()
    assert len(list((folder / "speech").glob("*.wav"))) == len(list((folder / "speech").glob("*.png"))) == 4
    assert list(folder.glob("events*"))


def test_the_demo_goes_all_the_way(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The same path as the slow test's, in two updates on one utterance."""
    monkeypatch.chdir(ROOT)
    with caplog.at_level("INFO"):
        main(["demo", "--trainer.logger.init_args.save_dir", str(tmp_path), *SMALL])
    out, err = capsys.readouterr()
    summary = out.partition("Done: 2 generator updates.")[2]
    folder = tmp_path / "demo" / "version_0"
    assert err.startswith(PLAN)
    assert "univnet synthesize" not in caplog.text  # which a run without a summary says
    assert all(f"{folder / name}: " in summary for name in ("speech", "pretrained"))
    assert (folder / "checkpoints" / "best.ckpt").exists()
    for speech in (folder / "speech", folder / "pretrained"):
        assert len(list(speech.glob("*.wav"))) == len(list(speech.glob("*.png"))) == 1


def test_a_demo_that_is_stopped_names_a_command_that_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    usual = LastCheckpoint.on_train_batch_end

    def stop(*args: Any) -> None:
        usual(*args)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", stop)
    with pytest.raises(SystemExit) as ended:
        main(["demo", "--trainer.logger.init_args.save_dir", str(tmp_path / "its runs"), *SMALL])
    assert ended.value.code == 128 + signal.SIGTERM
    monkeypatch.setattr(LastCheckpoint, "on_train_batch_end", usual)
    [command] = re.findall("the demo's training goes on with: univnet (.*)", capsys.readouterr().err)
    folder = tmp_path / "its runs" / "demo" / "version_0"
    before = load(folder / "checkpoints" / "last.ckpt")
    main(shlex.split(command))
    after = load(folder / "checkpoints" / "last.ckpt")
    assert (before["global_step"], after["global_step"]) == (1, 2)
    assert before["options"] == after["options"]
    assert [path.name for path in folder.parent.iterdir()] == ["version_0"]


@pytest.mark.parametrize("option", ["--ckpt_path", "--rollbacks"])
def test_what_the_help_says_it_does_not_take_is_refused(
    option: str, monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert option in HELP
    assert option in refused("demo", option, "3")


def test_the_demo_needs_the_repository(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["demo"])
    assert ended.value.code == 2
    assert "run it in the repository's folder" in capsys.readouterr().err


def test_a_mistake_is_sent_to_the_demos_own_help(monkeypatch: pytest.MonkeyPatch, refused: Callable[..., str]) -> None:
    monkeypatch.chdir(ROOT)
    assert refused("demo", "--wrong") == "unrecognized arguments: --wrong; see `univnet demo --help`"
