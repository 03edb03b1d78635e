"""Metrics as validation terms: by one process and by two, from a configuration, and with mistakes in it."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from support import PROGRAMS
from support.small import write_config
from support.validating import MEASURED, batches, validate
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from univnet.callbacks import ValidationMetrics
from univnet.cli import main
from univnet.metrics import METRICS


@pytest.mark.filterwarnings("ignore")
def test_two_processes_log_what_one_does_and_what_the_functions_say(tmp_path: Path) -> None:
    _, alone = validate(tmp_path, accelerator="cpu", devices=1)
    real = [batch["audio"] for batch in batches()]
    for utterances in MEASURED:
        for name, value in alone[str(utterances)].items():
            each = [METRICS[name](audio.roll(7, dims=2), audio, 16000) for audio in real[:utterances]]
            assert value == pytest.approx(sum(each) / utterances, rel=1e-5)
    command = [sys.executable, PROGRAMS / "metrics_ddp_run.py", tmp_path]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    for rank in range(2):
        logged = json.loads((tmp_path / f"rank{rank}.json").read_text())
        for utterances, values in alone.items():
            assert logged[utterances] == pytest.approx(values, rel=1e-5)


def test_a_configuration_adds_a_term_that_is_logged_and_kept_by(tmp_path: Path, demo: Path) -> None:
    config = write_config(tmp_path, 5, demo)
    callback = ["--trainer.callbacks", "univnet.callbacks.ValidationMetrics"]
    callback += ["--trainer.callbacks.metrics", "[mstft, f0]", "--trainer.callbacks.utterances", "1"]
    if METRICS["mstft"].missing:
        pytest.skip(str(METRICS["mstft"].missing))
    best = ["--checkpoint_best.monitor", "val/mstft"]
    main(["fit", "--config", str(config), *callback, *best, "--trainer.val_check_interval", "1"])
    [folder] = (tmp_path / "runs" / "small").iterdir()
    events = EventAccumulator(str(folder)).Reload()
    [logged] = events.Scalars("val/mstft")
    assert logged.step == 1
    assert logged.value > 0.5
    assert "val/f0" in events.Tags()["scalars"]
    kept = torch.load(folder / "checkpoints" / "best.ckpt", weights_only=True)["callbacks"]
    [score] = [v["best_model_score"] for k, v in kept.items() if "val/mstft" in k]
    assert float(score) == pytest.approx(logged.value, rel=1e-6)


def test_all_mistakes_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "pesq" else find(name, *a))
    with pytest.raises(ValueError, match=r"utterances must be at least 1, got 0; pesq needs .*univnet\[pesq\]"):
        ValidationMetrics(["pesq"], 0)
    with pytest.raises(ValueError, match="there is no metric 'utmos'"):
        ValidationMetrics(["utmos"])
