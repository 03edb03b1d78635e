"""The ``find-lr`` verb: a learning-rate range test of a UnivNet's two players, its picture, and a config."""

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities import rank_zero_only

from univnet.cli.messages import UsageError
from univnet.cli.training import told_plainly
from univnet.cli.tuning import TuningCLI
from univnet.gan import Collapse, LRGrid, LRRangeTest, Tuner
from univnet.gan.tuner.lr_curve import DEFAULT_METHOD, Method
from univnet.gan.tuner.lr_range_test import Mode
from univnet.gan.tuner.tuner import Optimizer

NAME = "lr_find"


@dataclass
class Options:
    """Learning-rate range test.

    Args:
        optimizer: whose rate is swept: "both" one after the other, the second at the rate just found; "joint" together
            at a fixed ratio; "grid" every pair of a few rates.
        min_lr: the first learning rate.
        max_lr: the last.
        num_training: updates of the swept player, one at each rate; of every pair in a grid.
        mode: steps between the rates.
        early_stop_threshold: end where the smoothed loss is this many times the best; null: do not.
        monitor: the logged term to watch, such as generator/adversarial, in place of that player's usual one
            (generator/stft or discriminator/loss).
        ratio: the discriminator's rate over the generator's, for "joint"; null: as configured.
        repeats: tests from the same weights with other random numbers, of which the curve is the mean.
        smoothing: weight of a neighbour in the smoothed curve, for each point that it is away; 0 to below 1.
        validation_batches: watch the loss on so many validation utterances instead of training's.
        collapse: when the discriminator's test ends because it has won.
        suggest: how the rates are read off the curves.
        grid_size: rates of each player, for "grid".
        ckpt_path: a checkpoint to start from, or "last".
        cyclical: find rates to cycle between, too (Smith 2017, section 3.3).
        cyclical_updates: updates from the lowest rate to the highest; null: those of four epochs, or, if that is less,
            of a sixth of max_steps.
        write: a YAML file to write, the configuration with the rates found.
    """

    optimizer: Optimizer = "both"
    min_lr: float = 1e-7
    max_lr: float = 1.0
    num_training: int = 100
    mode: Mode = "exponential"
    early_stop_threshold: float | None = 4.0
    monitor: str | None = None
    ratio: float | None = None
    repeats: int = 1
    smoothing: float = 0.8
    validation_batches: int = 0
    collapse: Collapse = field(default_factory=Collapse)
    suggest: Method = DEFAULT_METHOD
    grid_size: int = 5
    ckpt_path: str | None = None
    cyclical: bool = False
    cyclical_updates: int | None = None
    write: str | None = None


def run(argv: Sequence[str]) -> None:
    """Test the rates, draw the curves, say what they suggest, and write that down.

    Raises:
        UsageError: what the user can mend, in a sentence.
    """
    with told_plainly():
        cli = TuningCLI("find-lr", Options, argv)
        options = cli.options
        if options.cyclical and options.optimizer in ("joint", "grid"):
            raise UsageError(
                f"--cyclical needs a curve for each player: give --optimizer both, not {options.optimizer}"
            )
        own = {"ckpt_path", "cyclical", "cyclical_updates", "write"}
        arguments = {key: value for key, value in vars(options).items() if key not in own}
        found = Tuner(cli.trainer).lr_find(
            cli.model, datamodule=cli.datamodule, ckpt_path=options.ckpt_path, update_attr=False, **arguments
        )
    if found is None:
        return
    changes = {
        f"model.{player}_lr": float(f"{rate:.3g}")
        for player, rate in found.suggestions(method=options.suggest, quiet=True).items()
        if rate is not None
    }
    if options.cyclical:
        assert isinstance(found, LRRangeTest)
        changes |= _schedules(cli, found, options)
    folder = cli.folder  # asked for on every rank
    _keep(cli, found, changes, folder)
    _tell(cli, found, changes, folder)
    if options.write and changes:
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
def _keep(cli: TuningCLI, found: LRRangeTest | LRGrid, changes: dict[str, Any], folder: Path) -> None:
    """Write the findings into the run's folder, as JSON, CSV and a picture, and the picture into TensorBoard."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {"options": asdict(cli.options), "found": changes, **found.as_dict()}
    (folder / f"{NAME}.json").write_text(json.dumps(record, indent=1) + "\n")
    with (folder / f"{NAME}.csv").open("w", newline="") as file:
        csv.writer(file).writerows(found.rows())
    figure = found.plot(suggest=True)
    figure.savefig(folder / f"{NAME}.png", dpi=150)
    for logger in cli.trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(NAME, figure)
            logger.experiment.close()


@rank_zero_only
def _tell(cli: TuningCLI, found: LRRangeTest | LRGrid, changes: dict[str, Any], folder: Path) -> None:
    if isinstance(found, LRRangeTest):
        for player, curve in found.curves.items():
            ended = f"; the test ended early: {curve.ended}" if curve.ended else ""
            print(f"{player}: {len(curve.lr)} updates, {curve.lr[0]:.2g} to {curve.lr[-1]:.2g}{ended}")
            for method, rate in curve.suggestions().items():
                print(f"  {method:10}{'-' if rate is None else f'{rate:.2e}'}")
            if problem := curve.problem():
                print(f"  no learning rate is suggested: {problem}")
    rates = " ".join(f"--{key} {value}" for key, value in changes.items() if key.endswith("_lr"))
    schedules = {key.removeprefix("model."): value for key, value in changes.items() if key.endswith("_schedule")}
    print(f"picture and figures: {folder / NAME}.png, .csv, .json")
    if rates:
        print(f"to train with what {cli.options.suggest} suggests: {rates}")
    if schedules:
        print(f"to cycle between the rates:\n{yaml.safe_dump({'model': schedules}, sort_keys=False)}", end="")
    if cli.options.write:
        what = (
            f"written: {cli.options.write}" if changes else f"nothing was found, so {cli.options.write} is not written"
        )
        print(what)
