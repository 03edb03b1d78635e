"""The ``find-lr`` verb: a learning-rate range test of a UnivNet's two players, its picture, and a config."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from univnet.cli.messages import UsageError
from univnet.cli.tuning import TuningCLI, arguments_of
from univnet.common.files import write_text, written_whole
from univnet.common.mistakes import Mistakes
from univnet.gan import LRGrid, LRRangeTest
from univnet.gan.tuner.tuner import LRFindOptions, Optimizer, Tuner

NAME = "lr_find"
_SHORT = 50  # updates; the curves of shorter tests are mostly noise


@dataclass(frozen=True)
class Options(LRFindOptions):
    """Learning-rate range test; besides these options, everything that ``fit`` takes.

    Args:
        ckpt_path: a checkpoint to start from, or "last".
        cyclical: find rates to cycle between, too (Smith 2017, section 3.3).
        cyclical_updates: updates from the lowest rate to the highest, default: those of four epochs; or, if that is
            less, of a sixth of max_steps.
        write: a new file for the configuration with the rates found, for ``fit --config``.
    """

    optimizer: Optimizer = "both"
    min_lr: float = 1e-7
    ckpt_path: str | None = None
    cyclical: bool = False
    cyclical_updates: int | None = None
    write: str | None = None

    def collect_mistakes(self, mistakes: Mistakes) -> None:
        """Note every option that is out of range, or does not go with another."""
        super().collect_mistakes(mistakes)
        mistakes.unless(
            not self.cyclical or self.optimizer not in ("joint", "grid"),
            f"--cyclical needs a curve for each player: give --optimizer both, not {self.optimizer}",
        )
        updates = self.cyclical_updates
        mistakes.unless(updates is None or updates >= 1, f"cyclical_updates must be at least 1, got {updates!r}")


def run(argv: Sequence[str]) -> None:
    """Test the rates, draw the curves, say what they suggest, and write that down.

    Raises:
        UsageError: what the user can mend, in a sentence; also where no rate was found that could be written.
    """
    cli = TuningCLI("find-lr", Options, argv)
    options = cli.options
    found = Tuner(cli.trainer).lr_find(
        cli.model,
        datamodule=cli.datamodule,
        ckpt_path=options.ckpt_path,
        update_attr=False,
        **arguments_of(options, LRFindOptions),
    )
    if found is None:
        return
    changes: dict[str, Any] = {
        f"model.{player}_lr": float(f"{rate:.3g}")
        for player, rate in found.suggestions(method=options.suggest, quiet=True).items()
        if rate is not None
    }
    if options.cyclical:
        assert isinstance(found, LRRangeTest)
        changes |= _schedules(cli, found, options)
    folder = cli.folder  # asked for on every rank
    _save(cli, found, changes, folder)
    _print_findings(cli, found, changes, folder)
    if options.write and not changes:
        raise UsageError(f"no learning rate was found, so --write {options.write} is not written: {_advice(options)}")
    if options.write:
        cli.write_config(options.write, changes)


def _schedules(cli: TuningCLI, found: LRRangeTest, options: Options) -> dict[str, Any]:
    """Return a cyclical schedule for each player whose curve gives one, as a change of the configuration."""
    changes = {}
    for player, curve in found.curves.items():
        if (bounds := curve.bounds()) is None:
            continue
        updates = options.cyclical_updates or _four_epochs(cli, player)
        rates = {name: float(f"{rate:.3g}") for name, rate in bounds._asdict().items()}
        scheduler = {"class_path": "univnet.gan.CyclicalLR", "init_args": {**rates, "step_size_up": updates}}
        changes[f"model.{player}_schedule"] = {"scheduler": scheduler, "interval": "step"}
    return changes


def _four_epochs(cli: TuningCLI, player: str) -> int:
    micro_batches = 4 * len(cli.datamodule.train_dataloader())
    updates = micro_batches // cli.model.updates[player].settings.accumulate_at(0)
    if cli.trainer.max_steps > 0:
        updates = min(updates, cli.trainer.max_steps // 6)
    return max(updates, 1)


@rank_zero_only
def _save(cli: TuningCLI, found: LRRangeTest | LRGrid, changes: dict[str, Any], folder: Path) -> None:
    """Write the findings into the run's folder, as JSON, CSV and a picture, and the picture into TensorBoard."""
    record = {"options": asdict(cli.options), "found": changes, **found.as_dict()}
    write_text(folder / f"{NAME}.json", json.dumps(record, indent=1) + "\n")
    with written_whole(folder / f"{NAME}.csv") as partial, partial.open("w", newline="") as file:
        csv.writer(file).writerows(found.rows())
    figure = found.plot(suggest=True)
    with written_whole(folder / f"{NAME}.png") as partial:
        figure.savefig(partial, format="png", dpi=150)
    for logger in cli.trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(NAME, figure)
            logger.experiment.close()


@rank_zero_only
def _print_findings(cli: TuningCLI, found: LRRangeTest | LRGrid, changes: dict[str, Any], folder: Path) -> None:
    if isinstance(found, LRRangeTest):
        for player, curve in found.curves.items():
            ended = f"; the test ended early: {curve.ended}" if curve.ended else ""
            print(f"{player}: {len(curve.lr)} updates, {curve.lr[0]:.2g} to {curve.lr[-1]:.2g}{ended}")
            for method, rate in curve.suggestions().items():
                print(f"  {method:10}{'-' if rate is None else f'{rate:.2e}'}")
            if problem := curve.problem():
                print(f"  no learning rate is suggested: {_as_typed(problem)}")
            if doubt := curve.doubt():
                print(f"  no basis for these: {_as_typed(doubt)}")
    elif found.doubt:
        print(f"no basis for a suggestion: {_as_typed(found.doubt)}")
    rates = " ".join(f"--{key} {value}" for key, value in changes.items() if key.endswith("_lr"))
    schedules = {key.removeprefix("model."): value for key, value in changes.items() if key.endswith("_schedule")}
    print(f"picture and figures: {folder / NAME}.png, .csv, .json")
    if rates:
        print(f"to train with what {cli.options.suggest} suggests: {rates}")
    if schedules:
        print(f"to cycle between the rates:\n{yaml.safe_dump({'model': schedules}, sort_keys=False)}", end="")
    if cli.options.write and changes:
        print(f"written: {cli.options.write}")


def _advice(options: Options) -> str:
    """Return what to do where no rate was found, by the options as they are typed."""
    rates = f"try other rates (now --min_lr {options.min_lr:g} --max_lr {options.max_lr:g})"
    if options.optimizer != "grid" and options.num_training < _SHORT:
        return f"give more updates (now --num_training {options.num_training}), or {rates}"
    return f"{rates}, or more updates (now --num_training {options.num_training})"


def _as_typed(advice: str) -> str:
    """Return a curve's ``advice`` with the names in brackets as options of the command line."""
    names = "|".join(field.name for field in fields(Options))
    return re.sub(rf"(?<=[( ])({names})(?=[,)])", r"--\1", advice)
