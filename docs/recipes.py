"""What the techniques buy per hour: ``python docs/recipes.py SPEECH RUNS [RECIPE …] [--seeds N …]``.

The same networks, losses, speech and time of one core, by this package's recipe, by the plain recipe of UnivNet's own
code, and by this package's without one technique. SPEECH is a folder with train.tsv and validation.tsv. Time is that
of this process alone (CPU time of one thread, without validation and reading), measured for each recipe before the
runs; so other work on the machine disturbs it little. All recipes and three seeds are run, or those that are named;
what RUNS holds already is not run again. It prints the table of docs/quality.md and draws docs/pictures/recipes.png.
"""

import argparse
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from demo_model import demo_model, quiet_trainer
from matplotlib.figure import Figure
from small_runs import save

from univnet import AudioDataModule, UnivNet
from univnet.callbacks import ValidationMetrics
from univnet.gan import ExponentialMovingAverage
from univnet.module import Schedule

SEEDS = (1, 2, 3)
BUDGET = 480.0  # seconds of one core per run
VALIDATIONS = 8  # per run
ALONE = 0.2  # share of the updates before the discriminator begins, as in the paper
OURS: dict[str, Any] = {
    "rates": (5e-4, 2e-4),
    "falling": True,
    "average": 0.995,
    "clip": 10.0,
    "precision": "bf16-mixed",
    "shared": True,
}
PLAIN: dict[str, Any] = {
    "rates": (1e-4, 1e-4),
    "falling": False,
    "average": None,
    "clip": None,
    "precision": "32-true",
    "shared": False,
}
RECIPES = {"ours": OURS, "plain": PLAIN} | {f"without {name}": OURS | {name: PLAIN[name]} for name in OURS}
TERMS = {"val/stft": "M-STFT ↓", "val/pesq": "PESQ-WB ↑", "val/periodicity_tiny": "periodicity RMSE (tiny) ↓"}
Run = list[dict[str, float]]  # what each validation found


class PlainUnivNet(UnivNet):
    """UnivNet's own order of work: the discriminator judges the fakes once for each player."""

    one_forward_serves_both = False


class Clock(L.Callback):
    """The CPU time of training, and what validations find."""

    def __init__(self) -> None:
        self.seconds = self._begun = 0.0
        self.found: Run = []

    def on_train_batch_start(self, *args: Any) -> None:
        """Begin."""
        self._begun = time.process_time()

    def on_train_batch_end(self, *args: Any) -> None:
        """End."""
        self.seconds += time.process_time() - self._begun

    def on_validation_end(self, trainer: L.Trainer, *args: Any) -> None:
        """Take the metrics down."""
        metrics = {name: float(trainer.callback_metrics[name]) for name in TERMS}
        self.found.append({"updates": trainer.global_step, **metrics})


def train(recipe: dict[str, Any], speech: Path, seed: int, updates: int, start: int, validate: bool = True) -> Clock:
    """Train the demo's networks from scratch; the discriminator begins after ``start`` of the ``updates``."""
    L.seed_everything(seed, verbose=False)
    fall = Schedule(lambda optimizer: torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates))
    model = demo_model(
        UnivNet if recipe["shared"] else PlainUnivNet,
        recipe["clip"],
        discriminator_start=start,
        generator_lr=recipe["rates"][0],
        discriminator_lr=recipe["rates"][1],
        generator_schedule=fall if recipe["falling"] else None,
        discriminator_schedule=fall if recipe["falling"] else None,
    )
    data = AudioDataModule(
        manifest=str(speech / "train.tsv"),
        validation_manifest=str(speech / "validation.tsv"),
        validation_seconds=4,
        mel=model.mel,
        segment_length=8192,
        batch_size=4,
        num_workers=0,
        check="header",
        seed=seed,
    )
    clock = Clock()
    averages = [ExponentialMovingAverage(recipe["average"])] if recipe["average"] else []
    metrics = ValidationMetrics(["pesq", "periodicity_tiny"])
    trainer = quiet_trainer(
        updates,
        VALIDATIONS,
        recipe["precision"],
        limit_val_batches=1.0 if validate else 0,
        callbacks=[*averages, metrics, clock],  # the clock last: it counts what averaging costs
    )
    trainer.fit(model, data)
    return clock


def cost(recipe: dict[str, Any], speech: Path) -> tuple[float, float]:
    """Return the seconds of an update before and after the discriminator has begun."""
    clocks = [train(recipe, speech, 0, updates, updates if alone else 0, False) for alone, updates in _TRIALS]
    few_alone, alone, few, both = (clock.seconds for clock in clocks)
    return (alone - few_alone) / _LONGER, (both - few) / _LONGER


_LONGER = 30
_TRIALS = [(True, 8), (True, 8 + _LONGER), (False, 8), (False, 8 + _LONGER)]  # the first updates cost more


def measured(recipe: str, speech: Path, runs: Path) -> tuple[float, float]:
    """Return the cost of the recipe's updates, measured once: a technique that costs nothing has that of ours."""
    kind = RECIPES[recipe]["precision"], RECIPES[recipe]["shared"]
    record = runs / f"cost_{kind[0]}_{'shared' if kind[1] else 'apart'}.json"
    if not record.exists():
        record.write_text(json.dumps(cost(RECIPES[recipe], speech)))
    alone, both = json.loads(record.read_text())
    return alone, both


def lengths(costs: tuple[float, float]) -> tuple[int, int]:
    """Return how many updates the budget pays for, and after how many the discriminator begins."""
    updates = int(BUDGET / (ALONE * costs[0] + (1 - ALONE) * costs[1]))
    return updates, int(ALONE * updates)


def curve(run: Run, costs: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """Return the minutes and the values (validation, term) of a run's validations."""
    _, start = lengths(costs)
    updates = np.array([each["updates"] for each in run])
    seconds = costs[0] * np.minimum(updates, start) + costs[1] * np.maximum(updates - start, 0)
    return seconds / 60, np.array([[each[term] for term in TERMS] for each in run])


def main(speech: Path, runs: Path, recipes: Sequence[str] = tuple(RECIPES), seeds: Sequence[int] = SEEDS) -> None:
    """Run what is missing, and write the table and the picture."""
    torch.set_num_threads(1)
    runs.mkdir(parents=True, exist_ok=True)
    for recipe in recipes:
        for seed in seeds:
            record = runs / f"{recipe}_{seed}.json"
            if not record.exists():
                clock = train(RECIPES[recipe], speech, seed, *lengths(measured(recipe, speech, runs)))
                record.write_text(json.dumps(clock.found))
    write(runs)


def finished(runs: Path) -> Iterator[tuple[str, list[tuple[np.ndarray, np.ndarray]]]]:
    """Yield each recipe that has been run, and its curves, one for each seed."""
    for recipe in RECIPES:
        if records := sorted(runs.glob(f"{recipe}_*.json")):
            costs = measured(recipe, Path(), runs)
            yield recipe, [curve(json.loads(record.read_text()), costs) for record in records]


def write(runs: Path) -> None:
    """Print the table in Markdown, and draw the curves of both recipes."""
    curves = dict(finished(runs))
    print("| recipe (seeds) | updates | " + " | ".join(TERMS.values()) + " | time to the plain recipe's M-STFT |")
    print("|---|---|" + "---|" * (len(TERMS) + 1))
    goal = np.mean([values[-1, 0] for _, values in curves["plain"]])
    for recipe, each in curves.items():
        ends = np.array([values[-1] for _, values in each])
        reached = [until(minutes, values[:, 0], float(goal)) for minutes, values in each]
        minutes = BUDGET / 60 if recipe == "plain" else np.mean(reached)
        factor = f"{BUDGET / 60 / minutes:.1f} times as fast"
        times = f"{minutes:.1f} min ({factor})" if np.isfinite(minutes) else "not reached"
        spread = ends.std(0, ddof=1) if len(ends) > 1 else np.full(len(TERMS), np.nan)
        cells = [f"{m:.3f} ± {s:.3f}".removesuffix(" ± nan") for m, s in zip(ends.mean(0), spread, strict=True)]
        updates = lengths(measured(recipe, Path(), runs))[0]
        print(f"| {recipe} ({len(ends)}) | {updates:,} | " + " | ".join(cells) + f" | {times} |")
    figure = Figure(figsize=(9, 3), layout="constrained")
    for place, (ax, title) in enumerate(zip(figure.subplots(1, len(TERMS)), TERMS.values(), strict=True)):
        for color, recipe in enumerate(["ours", "plain"]):
            minutes = curves[recipe][0][0]
            values = np.array([run[:, place] for _, run in curves[recipe]])
            ax.plot(minutes, values.T, color=f"C{color}", alpha=0.35, linewidth=1)
            ax.plot(minutes, values.mean(0), color=f"C{color}", linewidth=2, label=recipe)
        ax.set(xlabel="minutes on one core", title=title)
        ax.grid(alpha=0.3)
    figure.axes[0].legend()
    save(figure, "recipes")


def until(minutes: np.ndarray, values: np.ndarray, goal: float) -> float:
    """Return when a falling curve first reaches ``goal``, interpolated; infinity if it does not."""
    below = np.flatnonzero(values <= goal)
    if not below.size:
        return float("inf")
    first = below[0]
    if first == 0:
        return float(minutes[0])
    share = (values[first - 1] - goal) / (values[first - 1] - values[first])
    return float(minutes[first - 1] + share * (minutes[first] - minutes[first - 1]))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("speech", type=Path)
    parser.add_argument("runs", type=Path)
    parser.add_argument("recipes", nargs="*", default=[*RECIPES])
    parser.add_argument("--seeds", nargs="+", type=int, default=SEEDS)
    main(**vars(parser.parse_args()))
