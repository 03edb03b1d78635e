"""The ``benchmark`` verb: contestants side by side, as a table and as JSON."""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from univnet.benchmarks.backends import BACKENDS, missing
from univnet.benchmarks.comparison import CONTESTS, compare
from univnet.benchmarks.contests import CHANNELS
from univnet.benchmarks.loading import Recordings
from univnet.cli.help.verb_parser import VerbParser
from univnet.cli.messages import UsageError
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


def _parser() -> VerbParser:
    parser = VerbParser(
        "benchmark",
        "Measure how fast training, inference, one layer or the loader is, beside plain peers.",
        "infer --size c16 --seconds 1 10 --output figures.json",
        "What is measured: train, an update of both players. infer, audio from a mel-spectrogram. lvc, the\n"
        "location-variable convolution alone. loader, training segments from files.",
    )
    add = parser.group("What is measured")
    add("what", choices=[*CONTESTS], help="which comparison (see below)")
    add("--size", choices=CHANNELS, default="c32", help="size of the generator")
    add("--batch", type=_positive, metavar="N", help=f"segments per batch (default: {_defaults(BATCH)})")
    add("--segment", type=_positive, default=16384, metavar="N", help="length of a segment, in samples at 24 kHz")
    add("--repeats", type=_positive, default=5, metavar="N", help="number of measurements, of which the median counts")
    add("--no-memory", dest="memory", action="store_false", help="do not measure peak memory")
    add("--output", type=Path, metavar="FILE", help="JSON file for all figures (default: the table alone)")
    add = parser.group("On what")
    add("--device", default="cpu", metavar="NAME", help="torch device, such as cuda")
    add(
        "--precision", choices=("32", "bf16"), default="32", help="precision of our own side: float32, or bf16 autocast"
    )
    add("--threads", type=_positive, metavar="N", help="torch's threads on the CPU (default: torch's own choice)")
    add = parser.group("infer alone")
    add(
        "--seconds",
        type=float,
        nargs="+",
        default=[1.0, 4.0, 10.0],
        metavar="SECONDS",
        help="lengths of the audio, in seconds",
    )
    add(
        "--backends",
        nargs="+",
        choices=BACKENDS,
        default=[],
        help="exported graphs, on the CPU (default: transformers)",
    )
    add = parser.group("loader alone")
    add(
        "--recordings",
        type=_recordings,
        nargs="+",
        default=[Recordings(1000, 10), Recordings(10, 3600)],
        metavar="COUNTxSECONDS",
        help="files to make in $TMPDIR, up to 6 GB (default: 1000x10 10x3600)",
    )
    add("--root", default="data/demo", metavar="DIR", help="folder of the speech that fills them")
    add(
        "--segments",
        type=_positive,
        default=512,
        metavar="N",
        help="segments per measurement, an eighth for hour-long files",
    )
    add("--workers", type=int, choices=(0, 1), default=0, help="reading processes, 0 for this process itself")
    return parser


def _defaults(of: dict[str, int]) -> str:
    return ", ".join(f"{number} for {what}" for what, number in of.items())


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    options = _parser().parse_args(argv)
    options.batch = options.batch or BATCH[options.what]
    options.memory &= options.what != "loader"
    mistakes = Mistakes("benchmark")
    segment, seconds, output = options.segment, min(options.seconds), options.output
    mistakes.unless(segment % 256 == 0, f"--segment must be a multiple of 256 samples, got {segment}")
    mistakes.unless(seconds >= 0.1, f"--seconds must be at least 0.1, got {seconds:g}")
    if options.backends:
        plain = options.what == "infer" and options.device == "cpu" and options.precision == "32"
        mistakes.unless(plain, "--backends is for infer on the CPU in float32")
        for name in options.backends:
            lacking = missing(name)
            mistakes.unless(not lacking, f"--backends {name} needs packages: pip install {' '.join(lacking)}")
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
