"""Run a contest: measure the time, memory and FLOPs of every contestant, in plain types."""

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from univnet.benchmarks import contests, loading, measure

CONTESTS = {"train": contests.train, "infer": contests.infer, "lvc": contests.lvc, "loader": loading.loader}
WITHOUT_TRANSFORMERS = "transformers is not installed: its rows are left out (pip install 'transformers>=5')"


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Run the contest and return all measurements: times in seconds, memory in bytes.

    Args:
        options: the options of the ``benchmark`` verb. ``threads`` is set for the whole process.
    """
    _prepare(options)
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    report: dict[str, Any] = {"machine": _machine(options), "notes": [], "rows": []}
    if options.what == "infer" and not contests.has_transformers():
        report["notes"].append(WITHOUT_TRANSFORMERS)
    if options.what != "loader":
        report["peak_flops_per_s"] = measure.machine_peak(options.device, dtype)
    for label, contest in CONTESTS[options.what](options).items():
        contestants = contest()
        seconds = measure.alternate(contestants, options.repeats, options.device)
        for name in contestants:
            row: dict[str, Any] = {
                "case": label,
                "contestant": name,
                **measure.summary(seconds[name]),
                "seconds": seconds[name],
            }
            row["faster"] = measure.summary(seconds[next(iter(seconds))])["median_s"] / row["median_s"]
            peak, retained = (_memory(options, label, name) if options.memory else None) or (None, None)
            row |= {"peak_memory_bytes": peak, "of_which_stay": retained}
            if options.what == "loader":
                row["segments_per_s"] = loading.segments(options)[label] / row["median_s"]
            else:
                row["flops"] = _flops(options, label, name)
                peak = report["peak_flops_per_s"]["convolution"]
                row["share_of_convolution_peak"] = row["flops"] / row["median_s"] / peak
            report["rows"].append(row)
    return report


def _prepare(options: argparse.Namespace, memory_of: list[str] | None = None) -> None:
    """Set torch's threads; ``memory_of`` is the contestant if this process only measures its memory."""
    options.memory_of = memory_of
    if options.threads:
        torch.set_num_threads(options.threads)


def _flops(options: argparse.Namespace, label: str, name: str) -> int:
    counted = copy.copy(options)
    if options.what != "train":
        counted.device = "meta"  # computes shapes only
        return measure.flops(_made(counted, label, name))
    # The losses turn autocast off, which fails on the meta device: so run one example, since all cost the same.
    counted.device, counted.batch = "cpu", 1
    [one] = CONTESTS["train"](counted)
    return options.batch * measure.flops(_made(counted, one, name))


def _made(options: argparse.Namespace, label: str, name: str) -> measure.Work:
    return CONTESTS[options.what](options)[label]()[name]


def _memory(options: argparse.Namespace, label: str, name: str) -> tuple[int, int] | None:
    """Measure the memory of one contestant, on the CPU in a new process (this module, run as a program)."""
    if torch.device(options.device).type == "cuda":  # torch counts it, so no new process is needed
        return measure.peak_memory(_made(options, label, name), options.device)
    command = [sys.executable, "-m", __name__, json.dumps(vars(options), default=str), label, name]
    # Freed memory goes back to the system, so that resident memory is what is in use.
    ran = subprocess.run(
        command, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed: {ran.stderr.strip()[-500:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    lines = cpu.read_text().splitlines() if cpu.exists() else []
    models = [line.split(":")[1].strip() for line in lines if "model name" in line]
    cuda = torch.device(options.device).type == "cuda"
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(options.device) if cuda else options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


if __name__ == "__main__":
    given, *contestant = sys.argv[1:]
    mine = argparse.Namespace(**json.loads(given))
    _prepare(mine, memory_of=contestant)
    print(json.dumps(measure.peak_memory(_made(mine, *contestant), mine.device)))
