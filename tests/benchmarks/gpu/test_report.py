"""The report: a part that fails in any way hides no other, and all parts work on the CPU, at reduced size."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from support import ROOT

from univnet.benchmarks.gpu import command, correctness, scale
from univnet.benchmarks.gpu.child import guarded, write_rows
from univnet.benchmarks.gpu.report import PARTS, Part, as_markdown, failures, make_report
from univnet.benchmarks.gpu.scale import Scale

CPU = Scale.of("cpu")


@pytest.mark.parametrize(
    ("how", "seconds", "error"),
    [
        ("raises", 60, "ended with status 1: RuntimeError: the device has gone"),
        ("hangs", 3, "stopped after 3 s"),
    ],
)
def test_a_part_that_fails_hides_no_other(
    how: str, seconds: float, error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REPORT_PART", how)
    parts = {"ours": Part("support.report_parts", "Ours", seconds), "late": Part("nowhere", "Too late", 0)}
    report = make_report(CPU, tmp_path / "new", parts=parts)
    assert json.loads((tmp_path / "new/report.json").read_text()) == json.loads(json.dumps(report))
    found = report["parts"]["ours"]
    assert error in found["error"]
    text = (tmp_path / "new/report.md").read_text()
    if how == "raises":  # a busy machine may take 3 s to begin
        assert found["rows"] == [{"case": "first", "value": 1.5, "right": True}]
        assert "| first | 1.5 | True |" in text
    assert f"**Not finished: {found['error']}**" in text
    ours, late = failures(report)
    assert ours.startswith(f"ours: {error}")
    assert late == "late: no time was left for it"


def test_a_row_that_fails_hides_no_other(tmp_path: Path) -> None:
    def wrong() -> dict[str, Any]:
        raise ValueError("too large\nand more")

    rows = [guarded("one", wrong), *(guarded(str(each), dict, {"right": each}) for each in (False, True))]
    assert rows[0] == {"case": "one", "error": "ValueError: too large"}
    write_rows(iter(rows), tmp_path / "rows.jsonl")
    assert [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()] == rows
    report = {"machine": {}, "parts": {"a": {"title": "A", "error": None, "seconds": 1, "rows": rows}}}
    assert failures(report) == ["a: one: ValueError: too large", "a: False: is not right"]
    assert as_markdown(report).count("| case |") == 2  # a table for each kind of row


@pytest.fixture
def _as_before() -> Iterator[None]:
    threads, states = torch.get_num_threads(), torch.get_rng_state()
    yield
    torch.set_num_threads(threads)
    torch.set_rng_state(states)


@pytest.mark.usefixtures("_as_before")
@pytest.mark.parametrize("name", PARTS)
def test_a_part_on_the_cpu(name: str) -> None:
    rows = list(import_module(PARTS[name].module).rows(replace(CPU, train_seconds=1.0)))
    assert rows
    bad = [row for row in rows if "error" in row or row.get("right") is False]
    assert not bad
    if name == "training":
        speeds = {row["case"]: row["updates/s"] for row in rows if "updates/s" in row}
        assert {"c4, bf16, channels-last", "c4, plain step, tf32", "c4, trainer, bf16"} <= speeds.keys()
        assert min(speeds.values()) > 0
    if name == "tests":
        assert rows[0]["passed"] == 3
    if name == "run":
        assert rows[-1]["data"] == "speech"


def test_what_is_wrong_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that a broken device would pass is none."""
    function, inputs = correctness.functions(CPU)["mel-spectrogram"]
    right = correctness._with_gradients

    def off(function: Any, inputs: Any, device: str, dtype: torch.dtype) -> Any:
        output, gradient = right(function, inputs, device, dtype)
        return (output, gradient) if dtype == torch.float64 else (output * 1.001, gradient)

    assert correctness.against(CPU, function, inputs, "float32")["right"]
    monkeypatch.setattr(correctness, "_with_gradients", off)
    assert not correctness.against(CPU, function, inputs, "float32")["right"]


def test_sizes_and_precisions(monkeypatch: pytest.MonkeyPatch) -> None:
    gpu = Scale.of("cuda:1")
    assert (gpu.cuda, gpu.channels, gpu.batch, gpu.segment) == (True, (16, 32), 32, 16384)
    assert not CPU.cuda
    told: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", told.append)
    before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
    for name, tf32 in (("float32", False), ("tf32", True)):
        with gpu.precision(name):
            assert torch.backends.cudnn.allow_tf32 == tf32
    assert told == ["highest", before[0], "high", before[0]]
    assert torch.backends.cudnn.allow_tf32 == before[1]
    assert replace(gpu, batch=2).config["batch"] == 2
    assert scale.Scale(**CPU.config) == CPU


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "PARTS", {"ours": Part("support.report_parts", "Ours", 60)})
    with pytest.raises(SystemExit) as left:
        command.main(["--device", "cpu", "--output", str(tmp_path)])
    assert left.value.code == 0
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["parts"]["ours"]["rows"][1] == {
        "case": "second|one",
        "device": "cpu",
        "channels": list(CPU.channels),
    }
    assert r"| second\|one | cpu |" in capsys.readouterr().out


def test_the_script_needs_no_installed_package(tmp_path: Path) -> None:
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    script = [sys.executable, ROOT / "scripts/gpu_report.py", "--device", "nowhere", "--output", tmp_path]
    ran = subprocess.run(script, cwd=tmp_path, env=bare, capture_output=True, text=True, check=False)
    assert ran.returncode == 2
    assert "--device nowhere cannot be used here" in ran.stderr
    assert not [*tmp_path.iterdir()]
