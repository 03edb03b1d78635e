"""The command line of the report: its options, what it prints, and its exit status."""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch

from univnet.benchmarks.gpu.report import PARTS, failures, make_report
from univnet.benchmarks.gpu.scale import Scale


def main(argv: Sequence[str] | None = None) -> None:
    """Make the report; exit with 1 if a part was not finished or something is not right, with 2 for wrong options."""
    parser = argparse.ArgumentParser(prog="gpu_report.py", description="Prove and measure on a machine with a GPU.")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1 or, reduced, cpu (default: cuda)")
    parser.add_argument("--output", type=Path, required=True, help="folder for report.json and report.md")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=[], help="only these (default: all)")
    parser.add_argument("--minutes", type=float, default=9.0, help="for all parts together (default: 9)")
    parser.add_argument("--train-seconds", type=float, help="of the real run (default: 60, on the CPU 3)")
    options = parser.parse_args(argv)
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        parser.error(f"--device {options.device} cannot be used here: {str(error).splitlines()[0]}")
    scale, parts = Scale.of(options.device), dict(PARTS)
    if options.train_seconds is not None:
        scale = replace(scale, train_seconds=options.train_seconds)
        parts["run"] = replace(parts["run"], seconds=options.train_seconds + 40)
    report = make_report(scale, options.output, options.parts, parts, 60 * options.minutes)
    print((options.output / "report.md").read_text())
    wrong = failures(report)
    for each in wrong:
        print(f"not right: {each}", file=sys.stderr)
    print(f"{options.output / 'report.json'}, {options.output / 'report.md'}")
    sys.exit(1 if wrong else 0)
