"""Does it pay to warm fresh discriminators up? ``python docs/warmup.py SPEECH RUNS CONFIG CHECKPOINT``.

The generator in CHECKPOINT is published without its discriminators; for each seed, runs start from it with fresh ones,
once with both players at once and once after a warm-up. CONFIG describes the model, such as configs/demo.yaml; SPEECH
is a folder with train.tsv and validation.tsv, as ``univnet prepare`` writes them. What RUNS holds already is not run
again. Validation M-STFT after every few generator updates is printed as a table and drawn into RUNS/warmup.png.
"""

import csv
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

SEEDS = (1, 2, 3)
UPDATES, EVERY = 150, 25  # generator updates of a run, and between validations
WARMUPS = (0, 500)  # discriminator updates
COMMON = [
    *("--data.batch_size", "4", "--data.check", "header", "--data.validation_seconds", "4"),
    *("--model.generator_lr", "1e-4", "--model.discriminator_lr", "2e-4", "--model.discriminator_start", "0"),
    *("--trainer.max_steps", str(UPDATES), "--trainer.val_check_interval", str(EVERY)),
    *("--trainer.log_every_n_steps", "5", "--trainer.enable_checkpointing", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.logger", "CSVLogger"),
]
Curve = dict[int, float]  # validation M-STFT by generator updates


def univnet(*argv: object) -> None:
    """Run a verb."""
    subprocess.run([Path(sys.executable).with_name("univnet"), *map(str, argv)], check=True)


def publish(checkpoint: Path, folder: Path) -> Path:
    """Export the generator, and leave out the discriminators that the checkpoint has."""
    if not (folder / "config.json").exists():
        univnet("export", "--checkpoint", checkpoint, "--to", "folder", "--output", folder)
    (folder / "discriminator.safetensors").unlink(missing_ok=True)
    return folder


def curve(folder: Path) -> Curve:
    """Return a run's validation M-STFT by generator updates; the last value where there are several."""
    metrics = folder / "version_0" / "metrics.csv"
    if not metrics.exists():
        return {}
    with metrics.open() as file:
        return {int(row["step"]): float(row["val/stft"]) for row in csv.DictReader(file) if row.get("val/stft")}


def main(speech: Path, runs: Path, config: Path, checkpoint: Path) -> None:
    """Run what is missing, and write the table and the picture."""
    generator = publish(checkpoint, runs / "generator")
    curves: dict[int, list[Curve]] = {warmup: [] for warmup in WARMUPS}
    for seed in SEEDS:
        for warmup in WARMUPS:
            folder = runs / f"warmup{warmup}_seed{seed}"
            if max(curve(folder), default=0) < UPDATES:
                where = ["--trainer.logger.save_dir", runs, "--trainer.logger.name", folder.name]
                where += ["--trainer.logger.version", 0, "--seed_everything", seed, "--data.seed", seed]
                where += ["--data.manifest", speech / "train.tsv"]
                where += ["--data.validation_manifest", speech / "validation.tsv"]
                start = ["--init_from", generator, "--model.discriminator_warmup", warmup]
                univnet("fit", "--config", config, *COMMON, *where, *start)
            curves[warmup].append(curve(folder))
    write(curves, runs)


def write(curves: dict[int, list[Curve]], runs: Path) -> None:
    """Print the table in Markdown, and draw the curves."""
    # While the discriminators warm up, validation hears the generator as it was published.
    start = next(each[0] for many in curves.values() for each in many if 0 in each)
    steps = sorted(set.intersection(*(set(each) | {0} for many in curves.values() for each in many)))
    values = {
        warmup: np.array([[each.get(step, start) for step in steps] for each in many])
        for warmup, many in curves.items()
    }
    print("| generator updates | " + " | ".join(f"warm-up of {warmup}" for warmup in curves) + " |")
    print("|---|" + "---|" * len(curves))
    for place, step in enumerate(steps):
        cells = []
        for of in values.values():
            here = of[:, place]
            cells.append(f"{here.mean():.3f} ± {here.std(ddof=1):.3f} ({', '.join(f'{each:.3f}' for each in here)})")
        print(f"| {step} | " + " | ".join(cells) + " |")
    figure = plt.figure(figsize=(7, 3.5), layout="constrained")
    ax = figure.subplots()
    for color, (warmup, of) in enumerate(values.items()):
        ax.plot(steps, of.T, color=f"C{color}", alpha=0.35, linewidth=1)
        ax.plot(steps, of.mean(0), color=f"C{color}", linewidth=2, label=f"warm-up of {warmup} updates")
    ax.set(xlabel="generator updates from the start", ylabel="validation M-STFT")
    ax.legend()
    ax.grid(alpha=0.3)
    figure.savefig(runs / "warmup.png", dpi=110)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))  # type: ignore[arg-type]
