"""The pictures of docs/techniques.md: ``python docs/techniques.py RUNS``.

Short runs of a small model on data/demo, in the folder RUNS; what it holds already is not run again.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import small_runs
from lightning.pytorch import Callback
from median_limit import MedianLimit
from small_runs import COLOURS, Run, finish, panels, save, tensorboard

from univnet.cli.training import TrainingCLI
from univnet.gan import Tuner

UPDATES = 200  # of a run, if it does not say otherwise
WINDOWS, EPOCHS = {0: 8, 8: 4, 16: 1}, 24  # the generator's K from which epoch on, and how many there are
FAULTS = (40, 41, 42, 80)  # micro-batches whose gradient is spoilt
TEST = {"optimizer": "both", "min_lr": 1e-7}
SEARCH = {"mode": "throughput", "memory_budget": "2GiB", "max_val": 64}


class Fault(Callback):
    """Make the generator's gradient infinite on the micro-batches ``FAULTS``."""

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        """Spoil it where it is computed."""
        weight = next(pl_module.generator.parameters())
        weight.register_hook(lambda grad: grad * float("inf") if trainer.fit_loop.batch_idx in FAULTS else grad)


def accumulation(runs: Path) -> None:
    """Draw a schedule of windows over epochs of a few micro-batches."""
    run = Run(
        *(runs / "accumulation", "--model.generator_updates.accumulate", WINDOWS, "--data.epoch", "files"),
        *("--trainer.max_steps", -1, "--trainer.max_epochs", EPOCHS, "--trainer.limit_val_batches", 0),
    )
    micro_batches = run.scalars("discriminator/updates")[1]  # the discriminator moves on each
    epochs = run.scalars("epoch")[1]
    figure, (counts, norms) = panels(2)
    for player, colour in zip(("discriminator", "generator"), COLOURS[1::-1], strict=True):
        counts.step(micro_batches, run.scalars(f"{player}/updates")[1], where="post", color=colour, label=player)
    _, norm = run.scalars("generator/gradient_norm")
    starts = [*WINDOWS, EPOCHS]
    for first, end, colour in zip(starts, starts[1:], COLOURS[1:], strict=False):
        here = (epochs >= first) & (epochs < end)
        norms.plot(
            micro_batches[here], norm[here], ".", color=colour, label=f"from epoch {first}: accumulate {WINDOWS[first]}"
        )
    norms.set_yscale("log")
    norms.margins(y=0.4)
    finish(counts, "updates", "micro-batches")
    finish(norms, "generator/gradient_norm", "micro-batches")
    save(figure, "accumulation")


def clipping(runs: Path) -> None:
    """Draw norms before clipping, the limits, and the share of updates that were clipped."""
    rule = '{"class_path": "median_limit.MedianLimit"}'
    run = Run(
        *(runs / "clipping", "--model.generator_updates.clip_norm", rule, "--trainer.max_steps", UPDATES),
        *("--model.discriminator_updates.clip_norm", 1.0),
    )
    figure, axes = panels(3)
    rule, limits = MedianLimit(), []
    for player, ax in zip(("generator", "discriminator"), axes, strict=False):
        steps, norms = run.scalars(f"{player}/gradient_norm")
        limits = [rule.limit(norm) for norm in norms] if player == "generator" else [1.0] * len(norms)
        ax.plot(steps, norms, ".", markersize=3, color=COLOURS[0], label="before clipping")
        ax.plot(steps, limits, color=COLOURS[1], label="limit")
        ax.set_yscale("log")
        finish(ax, f"{player}/gradient_norm")
        steps, clipped = run.scalars(f"{player}/clipped")
        axes[2].plot(
            steps, np.cumsum(clipped) / np.arange(1, len(clipped) + 1), label=f"{player}: {clipped.mean():.0%}"
        )
    finish(axes[2], "share clipped so far")
    save(figure, "clipping")


def guard(runs: Path) -> None:
    """Draw what four gradients that are infinite cost."""
    run = Run(runs / "guard", "--trainer.callbacks+=techniques.Fault", "--trainer.max_steps", UPDATES // 2)
    figure, axes = panels(3)
    tensorboard(axes[0], "generator/nonfinite", {"": run})
    ahead = run.scalars("discriminator/updates")[1] - run.scalars("generator/updates")[1]
    axes[1].plot(run.scalars("generator/updates")[0], ahead, color=COLOURS[0])
    finish(axes[1], "lead of discriminator/updates")
    tensorboard(axes[2], "generator/stft", {"": run}, 0.8)
    save(figure, "guard")


def schedules(runs: Path) -> None:
    """Draw a schedule of each player's own."""
    cyclical = '{"class_path": "univnet.gan.CyclicalLR", "init_args": {"base_lr": 1e-4, "max_lr": 2e-3, %s}}'
    plateau = '{"class_path": "torch.optim.lr_scheduler.ReduceLROnPlateau", "init_args": {%s}}'
    run = Run(
        *(runs / "schedules", "--trainer.max_steps", UPDATES),
        *("--model.generator_schedule.scheduler", cyclical % '"window": "hann", "step_size_up": 40'),
        *("--model.discriminator_schedule.scheduler", plateau % '"patience": 0, "factor": 0.5, "threshold": 0.05'),
        *("--model.discriminator_schedule.frequency", 20, "--model.discriminator_schedule.monitor", "val/stft"),
    )
    figure, axes = panels(3)
    for ax, tag in zip(axes, ("generator/lr", "discriminator/lr", "val/stft"), strict=True):
        tensorboard(ax, tag, {"": run})
    save(figure, "schedules")


def averages(runs: Path) -> None:
    """Draw validation of raw and of averaged weights."""
    ema = ("--trainer.callbacks+=univnet.gan.ExponentialMovingAverage", "--trainer.callbacks.decay", 0.95)
    swa = ("--trainer.callbacks+=univnet.gan.StochasticWeightAveraging", "--trainer.callbacks.swa_lrs", 5e-4)
    swa += ("--trainer.callbacks.swa_update_start", UPDATES // 2, "--trainer.callbacks.annealing_updates", 20)
    swa += ("--trainer.callbacks.every_n_updates", 5)
    common = (
        "--trainer.callbacks.validate_raw",
        "true",
        "--trainer.max_steps",
        UPDATES,
        "--trainer.val_check_interval",
    )
    found = {name: Run(runs / name, *more, *common, 10) for name, more in {"ema": ema, "swa": swa}.items()}
    figure, axes = panels(2)
    for ax, (name, run) in zip(axes, found.items(), strict=True):
        for tag, colour in (("val_raw/stft", "0.6"), ("val/stft", COLOURS[0])):
            ax.plot(*run.scalars(tag), color=colour, label=tag)
        ax.set_yscale("log")
        finish(ax, {"ema": "ExponentialMovingAverage", "swa": "StochasticWeightAveraging"}[name])
    save(figure, "averages")


def searches(runs: Path) -> None:
    """Draw what the range test and the batch-size finder find."""
    for name, search in (("lr_find", lr_find), ("batch_size", batch_size)):
        made = runs / f"{name}.png"
        if not made.exists():
            figure = search(_built(runs))
            figure.savefig(made, dpi=70)
        small_runs.shrink(made, name)


def lr_find(cli: TrainingCLI) -> Any:
    """Return the picture of a range test of both players."""
    found = Tuner(cli.trainer).lr_find(cli.model, datamodule=cli.datamodule, **TEST)
    assert found is not None
    print(found.suggestions())
    return found.plot(suggest=True)


def batch_size(cli: TrainingCLI) -> Any:
    """Return the picture of a search for the fastest batch size."""
    tuner = Tuner(cli.trainer)
    tuner.scale_batch_size(cli.model, datamodule=cli.datamodule, **SEARCH)
    assert tuner.batch_size_search is not None
    print(tuner.batch_size_search.table())
    return tuner.batch_size_search.plot()


def _built(runs: Path) -> TrainingCLI:
    where = [
        "--trainer.default_root_dir",
        str(runs),
        "--trainer.logger",
        "false",
        *small_runs.DATA,
    ]
    return TrainingCLI(args=["--config", str(small_runs.CONFIG), *where], run=False)


def main(runs: Path) -> None:
    """Run what is missing, and write the pictures."""
    for draw in (accumulation, clipping, guard, schedules, averages, searches):
        draw(runs)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
