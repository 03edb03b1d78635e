"""The demo, whole: what `make demo` promises."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from univnet.cli import main

ROOT = Path(__file__).parents[2]


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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same path as the slow test's, in two updates on one utterance."""
    monkeypatch.chdir(ROOT)
    small = {"max_steps": 2, "val_check_interval": 2, "limit_val_batches": 1, "enable_progress_bar": "false"}
    options = [each for name, value in small.items() for each in (f"--trainer.{name}", str(value))]
    options += ["--data.validation", "1", "--data.batch_size", "1", "--data.num_workers", "0"]
    main(["demo", "--trainer.logger.init_args.save_dir", str(tmp_path), *options])
    assert "Done: 2 generator updates." in capsys.readouterr().out
    folder = tmp_path / "demo" / "version_0"
    assert (folder / "checkpoints" / "best.ckpt").exists()
    for speech in (folder / "speech", folder / "pretrained"):
        assert len(list(speech.glob("*.wav"))) == len(list(speech.glob("*.png"))) == 1


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
