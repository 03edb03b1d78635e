"""The ``benchmark`` verb: contestants side by side, as a table and as JSON."""

import argparse
import copy
import json
import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch

from univnet.benchmarks import contests, measure
from univnet.cli.messages import UsageError

CONTESTS = {"train": contests.train, "infer": contests.infer, "lvc": contests.lvc, "loader": contests.loader}
BATCH = {"train": 8, "infer": 1, "lvc": 8, "loader": 8}
WITHOUT_TRANSFORMERS = "transformers is not installed: its rows are left out (pip install 'transformers>=5')"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see `univnet benchmark --help`")


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments, run the contest, print its table and write its JSON.

    Raises:
        UsageError: for arguments that do not fit.
    """
    options = _parse(argv)
    if options.threads:
        torch.set_num_threads(options.threads)
    if options.memory_of:
        label, name = options.memory_of
        print(json.dumps(measure.peak_memory(_made(options, label, name), options.device)))
        return
    if options.output and not options.output.parent.is_dir():
        raise UsageError(f"there is no folder {options.output.parent} to write {options.output.name} to")
    report = compare(options, argv)
    print(table(report))
    if options.output:
        options.output.write_text(json.dumps(report, indent=1) + "\n")


def compare(options: argparse.Namespace, argv: Sequence[str]) -> dict[str, Any]:
    """Run the contest and return all that was measured, in plain types; times in seconds, memory in bytes."""
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    report: dict[str, Any] = {"arguments": list(argv), "machine": _machine(options), "notes": [], "rows": []}
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
            peak, stays = (_memory(options, argv, label, name) if options.memory else None) or (None, None)
            row |= {"peak_memory_bytes": peak, "of_which_stay": stays}
            if options.what != "loader":
                row["flops"] = _flops(options, label, name)
                peak = report["peak_flops_per_s"]["convolution"]
                row["share_of_convolution_peak"] = row["flops"] / row["median_s"] / peak
            report["rows"].append(row)
    return report


def table(report: dict[str, Any]) -> str:
    """Lay the report out for a reader."""
    head = ("case", "contestant", "median s", "min-max s", "faster", "GFLOP", "of peak", "peak MB", "stay MB")
    lines = [head]
    for row in report["rows"]:
        flops, share = row.get("flops"), row.get("share_of_convolution_peak")
        memory = (row.get("peak_memory_bytes"), row.get("of_which_stay"))
        lines.append(
            (
                row["case"],
                row["contestant"],
                f"{row['median_s']:.4g}",
                f"{row['min_s']:.4g}-{row['max_s']:.4g}",
                f"{row['faster']:.2f}x",
                "" if flops is None else f"{flops / 1e9:.1f}",
                "" if share is None else f"{share:.0%}",
                *("" if size is None else f"{size / 1e6:.0f}" for size in memory),
            )
        )
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    text = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    if peak := report.get("peak_flops_per_s"):
        measured = ", ".join(f"{name.replace('_', ' ')} {value / 1e9:.0f}" for name, value in peak.items())
        text.append(f"measured peak, GFLOP/s: {measured}; 'of peak' is of the convolution's")
    machine = report["machine"]
    text.append(f"{machine['processor']}, {machine['threads']} threads, torch {machine['torch']}, {machine['device']}")
    return "\n".join([*text, *report["notes"]])


def _flops(options: argparse.Namespace, label: str, name: str) -> int:
    counted = copy.copy(options)
    if options.what != "train":
        counted.device = "meta"  # shapes alone cost nothing
        return measure.flops(_made(counted, label, name))
    # The losses turn autocast off, which knows no meta device: one example is run instead, and all cost the same.
    counted.device, counted.batch = "cpu", 1
    [one] = CONTESTS["train"](counted)
    return options.batch * measure.flops(_made(counted, one, name))


def _made(options: argparse.Namespace, label: str, name: str) -> measure.Work:
    return CONTESTS[options.what](options)[label]()[name]


def _memory(options: argparse.Namespace, argv: Sequence[str], label: str, name: str) -> tuple[int, int] | None:
    if torch.device(options.device).type == "cuda":  # torch counts its own: no fresh process is needed
        return measure.peak_memory(_made(options, label, name), options.device)
    code = "import sys; from univnet.cli import main; main(sys.argv[1:])"
    command = [sys.executable, "-c", code, "benchmark", *argv, "--memory-of", label, name]
    # What is freed goes back to the system, so that resident memory is what is in use.
    ran = subprocess.run(
        command, env=os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}, capture_output=True, text=True, check=False
    )
    if ran.returncode:
        raise RuntimeError(f"measuring the memory of {name} failed: {ran.stderr.strip()[-500:]}")
    return json.loads(ran.stdout.splitlines()[-1])


def _machine(options: argparse.Namespace) -> dict[str, Any]:
    cpu = Path("/proc/cpuinfo")
    models = [
        line.split(":")[1].strip() for line in cpu.read_text().splitlines() if "model name" in line
    ] * cpu.exists()
    cuda = torch.device(options.device).type == "cuda"
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "device": torch.cuda.get_device_name(options.device) if cuda else options.device,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = _Parser(prog="univnet benchmark", description=__doc__)
    parser.add_argument(
        "what", choices=CONTESTS, help="one update of both players, audio from a mel, the LVC alone, data"
    )
    parser.add_argument("--size", choices=contests.CHANNELS, default="c32", help="of the generator (default: c32)")
    parser.add_argument("--batch", type=_positive, help="examples (default: 8; for infer 1)")
    parser.add_argument("--segment", type=_positive, default=16384, help="samples an example (default: 16384)")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0, 10.0], help="to infer (default: 1 4 10)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="ours in (default: 32)")
    parser.add_argument("--threads", type=_positive, help="of torch on the CPU (default: torch's own)")
    parser.add_argument("--repeats", type=_positive, default=5, help="measured turns (default: 5)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--root", default="data/demo", help="recordings for loader (default: data/demo)")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out peak memory")
    parser.add_argument("--output", type=Path, help="also write all figures to this JSON file")
    parser.add_argument("--memory-of", nargs=2, help=argparse.SUPPRESS)  # a child's part: case and contestant
    options = parser.parse_args(argv)
    options.batch = options.batch or BATCH[options.what]
    if options.segment % 256:
        raise UsageError(f"--segment must be a multiple of 256 samples, got {options.segment}")
    if min(options.seconds) < 0.1:
        raise UsageError(f"--seconds must be at least 0.1, got {min(options.seconds):g}")
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {options.device} cannot be used here: {str(error).splitlines()[0]}") from error
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number
