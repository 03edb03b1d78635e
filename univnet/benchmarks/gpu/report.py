"""Run the parts one after the other, each in a process of its own with a limit of time; write JSON and Markdown."""

import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from univnet.benchmarks.gpu.scale import Row, Scale
from univnet.common.files import write_text

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True)
class Part:
    """One part of the report.

    Attributes:
        module: has ``rows(scale)``, which yields what was found, row by row.
        title: its heading.
        seconds: after so many it is stopped; the rows until then count.
    """

    module: str
    title: str
    seconds: float


PARTS = {
    "tests": Part("univnet.benchmarks.gpu.tests", "The tests for a GPU", 100),
    "correctness": Part("univnet.benchmarks.gpu.correctness", "Against float64 on the CPU", 60),
    "training": Part("univnet.benchmarks.gpu.training", "Training: one update of both players", 150),
    "profile": Part("univnet.benchmarks.gpu.profile", "Where the time of an update goes", 40),
    "inference": Part("univnet.benchmarks.gpu.inference", "Inference", 50),
    "finders": Part("univnet.benchmarks.gpu.finders", "The batch-size finder and the range test", 50),
    "kernels": Part("univnet.benchmarks.gpu.kernels", "One rank, convolutions by layout, host synchronizations", 40),
    "run": Part("univnet.benchmarks.gpu.real_run", "A real run", 90),
}


def make_report(
    scale: Scale, output: Path, names: Sequence[str] = (), parts: Mapping[str, Part] = PARTS, limit: float = 540.0
) -> dict[str, Any]:
    """Run the parts, write ``report.json`` and ``report.md`` to ``output`` after each, and return what the first holds.

    Args:
        scale: what is measured.
        output: a folder; made where missing.
        names: the parts to run; default: all.
        parts: by name.
        limit: seconds for all of them: a part gets no more than what is left.
    """
    output.mkdir(parents=True, exist_ok=True)
    report: dict[str, Any] = {"machine": machine(scale), "scale": scale.config, "parts": {}}
    end = time.monotonic() + limit
    for name in names or parts:
        part, left = parts[name], end - time.monotonic()
        report["parts"][name] = {"title": part.title, **_run(part, scale, min(part.seconds, left))}
        write_text(output / "report.json", json.dumps(report, indent=1, default=str) + "\n")
        write_text(output / "report.md", as_markdown(report))
    return report


def machine(scale: Scale) -> dict[str, Any]:
    """What it was measured on."""
    found = {"torch": torch.__version__, "python": platform.python_version(), "cores": os.cpu_count()}
    if not scale.cuda:
        return {"device": platform.processor() or platform.machine(), **found}
    about = torch.cuda.get_device_properties(scale.device)
    more = {"memory_bytes": about.total_memory, "cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    return {"device": about.name, **found, **more}


def _run(part: Part, scale: Scale, seconds: float) -> dict[str, Any]:
    """Run a part in a process of its own, so that neither an error nor a crash nor a hang hides the others."""
    if seconds <= 0:
        return {"error": "no time was left for it", "rows": [], "seconds": 0.0}
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        found, said = Path(folder, "rows.jsonl"), Path(folder, "said.txt")
        found.touch()
        command = [sys.executable, "-m", "univnet.benchmarks.gpu.child", part.module, json.dumps(scale.config)]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        with said.open("w") as file:
            child = subprocess.Popen(
                [*command, str(found)],
                stdout=file,
                stderr=file,
                env={**os.environ, "PYTHONPATH": path},
                cwd=ROOT,
                start_new_session=True,
            )
        try:
            status: int | None = child.wait(seconds)
        except subprocess.TimeoutExpired:
            status = None
        finally:
            _kill(child)
        rows = [json.loads(line) for line in found.read_text().splitlines()]
        last = [line for line in said.read_text(errors="replace").splitlines() if line.strip()][-1:]
    error = None
    if status is None:
        error = f"stopped after {seconds:.0f} s, which it may take"
    elif status:
        error = f"ended with status {status}: {' '.join(last)}"
    return {"error": error, "rows": rows, "seconds": round(time.monotonic() - start, 1)}


def _kill(child: subprocess.Popen) -> None:
    """End the child and what it has started."""
    with suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    child.wait()


def failures(report: Mapping[str, Any]) -> list[str]:
    """Name the parts that were not finished, and the rows that are not right."""
    found = []
    for name, part in report["parts"].items():
        if part["error"]:
            found.append(f"{name}: {part['error']}")
        found += [f"{name}: {row.get('case')}: {row.get('error', 'is not right')}" for row in part["rows"] if _bad(row)]
    return found


def _bad(row: Row) -> bool:
    return row.get("right") is False or "error" in row


def as_markdown(report: Mapping[str, Any]) -> str:
    """Lay the report out for a reader: a table for each kind of row."""
    lines = ["# GPU report", "", *(f"- {name}: {value}" for name, value in report["machine"].items()), ""]
    for part in report["parts"].values():
        lines += [f"## {part['title']} ({part['seconds']:.0f} s)", ""]
        if part["error"]:
            lines += [f"**Not finished: {part['error']}**", ""]
        kinds: dict[tuple[str, ...], list[Row]] = {}
        for row in part["rows"]:
            kinds.setdefault(tuple(row), []).append(row)
        for columns, rows in kinds.items():
            lines += [f"| {' | '.join(columns)} |", f"|{' --- |' * len(columns)}"]
            lines += [f"| {' | '.join(_cell(value) for value in row.values())} |" for row in rows]
            lines.append("")
    return "\n".join(lines)


def _cell(value: Any) -> str:
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())
