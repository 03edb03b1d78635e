"""The ``find-batch-size`` verb: which batch size to train with."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from univnet.cli.messages import UsageError
from univnet.cli.tuning import TuningCLI, arguments_of
from univnet.common.files import write_text, written_whole
from univnet.gan.tuner.batch_size import BatchSizeOptions
from univnet.gan.tuner.batch_size_result import BatchSizeSearch
from univnet.gan.tuner.tuner import Tuner

NAME = "batch_size"


@dataclass(frozen=True)
class Options(BatchSizeOptions):
    """Batch-size search; besides these options, everything that ``fit`` takes.

    Args:
        write: a new file for the configuration with what was found, for ``fit --config``.
    """

    write: str | None = None


def run(argv: Sequence[str]) -> None:
    """Look for the batch size of the run that ``argv`` describes, and print it.

    Raises:
        UsageError: what the user can mend, in a sentence; or nothing fits.
    """
    cli = TuningCLI("find-batch-size", Options, argv)
    tuner = Tuner(cli.trainer)
    try:
        tuner.scale_batch_size(cli.model, datamodule=cli.datamodule, **arguments_of(cli.options, BatchSizeOptions))
    except MemoryError as error:
        raise UsageError(str(error)) from error
    if tuner.batch_size_search is not None:
        _save_and_print(cli, tuner.batch_size_search, cli.folder)  # the folder is asked for on every rank


@rank_zero_only
def _save_and_print(cli: TuningCLI, found: BatchSizeSearch, folder: Path) -> None:
    config = found.config()
    files = [folder / f"{NAME}.json"]
    write_text(files[0], json.dumps(found.to_dict(), indent=2) + "\n")
    if found.mode == "throughput":
        files.append(folder / f"{NAME}.png")
        with written_whole(files[1]) as partial:
            found.plot().savefig(partial, format="png", dpi=150)
    print(f"\n{found.table()}\n\n{found}")
    print("\nTo train with it, add: " + " ".join(f"--{key} {value}" for key, value in config.items()))
    if cli.options.write:
        cli.write_config(cli.options.write, config)
        print(f"or: univnet fit --config {cli.options.write}")
    print("saved: " + ", ".join(map(str, files)))
