"""The ``find-batch-size`` verb: which batch size to train with."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.utilities import rank_zero_only

from univnet.cli.messages import UsageError
from univnet.cli.training import told_plainly
from univnet.cli.tuning import TuningCLI
from univnet.gan.tuner.batch_size_result import BatchSizeSearch
from univnet.gan.tuner.tuner import Tuner

_UNITS = {"": 1, "B": 1} | {
    f"{prefix}{binary}{b}": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("KMGT", 1)
    for binary in ("", "I")
    for b in ("", "B")
}


@dataclass(frozen=True)
class Options:
    """What to look for; besides these, everything that ``fit`` takes.

    Args:
        mode: "power" doubles the size until it does not fit into memory, "binsearch" goes on to the largest that does,
            "throughput" looks for the smallest that trains (nearly) as fast as any.
        init_val: the first size tried.
        steps_per_trial: full micro-batches in a trial, at least.
        max_trials: no more sizes than that are tried.
        max_val: no larger size is tried.
        margin: share of the largest size that fits to keep free.
        target_batch: examples of one update, over all devices: also finds the number of micro-batches to accumulate.
        memory_budget: on the CPU, the main memory of a training process with its loader workers, such as 3GiB, 500MB
            or a number of bytes; null: what it holds, and 90 % of what is free.
        write: a new file for the configuration with what was found, for `fit --config`.
    """

    mode: Literal["power", "binsearch", "throughput"] = "power"
    init_val: int = 2
    steps_per_trial: int = 3
    max_trials: int = 25
    max_val: int = 8192
    margin: float = 0.05
    target_batch: int | None = None
    memory_budget: str | int | None = None
    write: str | None = None


def run(argv: Sequence[str]) -> None:
    """Look for the batch size of the run that ``argv`` describes, and say it.

    Raises:
        UsageError: what the user can mend, in a sentence; or nothing fits.
    """
    with told_plainly():
        cli = TuningCLI("find-batch-size", Options, argv)
        options = cli.options
        tuner = Tuner(cli.trainer)
        try:
            tuner.scale_batch_size(
                cli.model,
                datamodule=cli.datamodule,
                mode=options.mode,
                steps_per_trial=options.steps_per_trial,
                init_val=options.init_val,
                max_trials=options.max_trials,
                margin=options.margin,
                max_val=options.max_val,
                target_batch=options.target_batch,
                memory_budget=byte_count(options.memory_budget),
            )
        except MemoryError as error:
            raise UsageError(str(error)) from error
        if tuner.batch_size_search is not None:
            _report(cli, tuner.batch_size_search, cli.folder)  # the folder is asked for on every rank


def byte_count(text: str | int | None) -> int | None:
    """Return a number of bytes written like ``3GiB``, ``1.5 GB`` or ``500000``.

    Raises:
        UsageError: it is not.
    """
    if text is None:
        return None
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", str(text).strip())
    try:
        number, unit = float(match[1]), _UNITS[match[2].upper()]  # type: ignore[index]
    except (TypeError, ValueError, KeyError):
        raise UsageError(f"--memory-budget {text}: expected a number of bytes, such as 3GiB or 500MB") from None
    return int(number * unit)


@rank_zero_only
def _report(cli: TuningCLI, found: BatchSizeSearch, folder: Path) -> None:
    config = found.config()
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / "batch_size.json"]
    files[0].write_text(json.dumps(found.to_dict(), indent=2) + "\n")
    if found.mode == "throughput":
        files.append(folder / "batch_size.png")
        found.plot().savefig(files[1], dpi=150)
    print(f"\n{found.table()}\n\n{found}")
    print("\nTo train with it, add: " + " ".join(f"--{key} {value}" for key, value in config.items()))
    if cli.options.write:
        cli.write_config(cli.options.write, config)
        print(f"or: univnet fit --config {cli.options.write}")
    print("saved: " + ", ".join(map(str, files)))
