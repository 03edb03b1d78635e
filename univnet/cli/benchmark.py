"""The ``benchmark`` verb: contestants side by side, as a table and as JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from univnet.benchmarks.comparison import CONTESTS, compare
from univnet.benchmarks.contests import CHANNELS
from univnet.benchmarks.loading import Recordings
from univnet.cli.messages import UsageError, VerbParser
from univnet.common.files import write_text
from univnet.common.mistakes import Mistakes

BATCH = {"train": 8, "infer": 1, "lvc": 8, "loader": 32}


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments, run the contest, print its table and write its JSON.

    Raises:
        UsageError: for arguments that do not fit.
    """
    options = _parse(argv)
    report = {"arguments": list(argv), **compare(options)}
    print(table(report))
    if options.output:
        write_text(options.output, json.dumps(report, indent=1) + "\n")


def table(report: dict[str, Any]) -> str:
    """Lay the report out for a reader."""
    head = ("case", "contestant", "median s", "min-max s", "faster", "per s", "GFLOP", "of peak", "peak MB", "stay MB")
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
                f"{row['segments_per_s']:.4g}" if "segments_per_s" in row else "",
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


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = VerbParser(prog="univnet benchmark", description=__doc__)
    parser.add_argument(
        "what", choices=CONTESTS, help="one update of both players, audio from a mel, the LVC alone, data"
    )
    parser.add_argument("--size", choices=CHANNELS, default="c32", help="of the generator (default: c32)")
    parser.add_argument("--batch", type=_positive, help="examples (default: 8; infer 1, loader 32)")
    parser.add_argument("--segment", type=_positive, default=16384, help="samples per example (default: 16384)")
    parser.add_argument("--seconds", type=float, nargs="+", default=[1.0, 4.0, 10.0], help="to infer (default: 1 4 10)")
    parser.add_argument("--precision", choices=("32", "bf16"), default="32", help="ours in (default: 32)")
    parser.add_argument("--threads", type=_positive, help="of torch on the CPU (default: torch's own)")
    parser.add_argument("--repeats", type=_positive, default=5, help="measured turns (default: 5)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument(
        "--recordings",
        type=_recordings,
        nargs="+",
        default=[Recordings(1000, 10), Recordings(10, 3600)],
        metavar="COUNTxSECONDS",
        help="that are made for loader, in $TMPDIR: up to 6 GB (default: 1000x10 10x3600)",
    )
    parser.add_argument("--root", default="data/demo", help="speech that they repeat (default: data/demo)")
    parser.add_argument(
        "--segments",
        type=_positive,
        default=512,
        help="per turn of loader; an eighth of long files (default: 512)",
    )
    parser.add_argument("--workers", type=int, choices=(0, 1), default=0, help="0: loader reads in this process")
    parser.add_argument("--no-memory", dest="memory", action="store_false", help="leave out peak memory")
    parser.add_argument("--output", type=Path, help="also write all figures to this JSON file")
    options = parser.parse_args(argv)
    options.batch = options.batch or BATCH[options.what]
    options.memory &= options.what != "loader"
    mistakes = Mistakes("benchmark")
    segment, seconds, output = options.segment, min(options.seconds), options.output
    mistakes.unless(segment % 256 == 0, f"--segment must be a multiple of 256 samples, got {segment}")
    mistakes.unless(seconds >= 0.1, f"--seconds must be at least 0.1, got {seconds:g}")
    if options.what == "loader":
        shortest = min(each.seconds for each in options.recordings)
        mistakes.unless(
            shortest * 24000 >= segment, f"--recordings must be as long as a segment of {segment / 24000:.2f} s"
        )
        mistakes.unless(Path(options.root).is_dir(), f"there is no folder {options.root} to take speech from: --root")
    if output:
        mistakes.unless(output.parent.is_dir(), f"there is no folder {output.parent} to write {output.name} to")
    try:
        torch.empty(1, device=options.device)
    except (RuntimeError, AssertionError) as error:
        mistakes.add([f"--device {options.device} cannot be used here: {str(error).splitlines()[0]}"])
    mistakes.raise_all(UsageError)
    return options


def _recordings(text: str) -> Recordings:
    try:
        amount, seconds = text.split("x")
        return Recordings(_positive(amount), float(seconds))
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be such as 1000x10, got {text}") from None


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1, got {text}")
    return number
