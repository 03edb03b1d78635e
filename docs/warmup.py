"""Does it pay to warm fresh discriminators up? ``python docs/warmup.py SPEECH RUNS CONFIG CHECKPOINT``.

The generator in CHECKPOINT is published without its discriminators; for each seed, runs start from it with fresh ones,
once with both players at once and once for each length of warm-up. CONFIG describes the model, such as
configs/demo.yaml; SPEECH is a folder of recordings. What RUNS holds already is not run again. Validation M-STFT after
every few generator updates is printed as a table and drawn into RUNS/warmup.png.
"""

import csv
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

SEEDS = (1, 2, 3)
UPDATES, EVERY = 400, 25  # generator updates of a run, and between validations
WARMUPS = (0, 100, 400)  # discriminator updates
COMMON = [
    *("--data.manifest", "null", "--data.check", "header", "--data.validation", "8"),
    *("--model.discriminator_start", "0", "--trainer.max_steps", str(UPDATES), "--trainer.log_every_n_steps", "5"),
    *("--trainer.val_check_interval", str(EVERY), "--trainer.enable_checkpointing", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.logger", "CSVLogger"),
]


def univnet(*argv: object) -> None:
    """Run a verb."""
    subprocess.run([Path(sys.executable).with_name("univnet"), *map(str, argv)], check=True)


def publish(checkpoint: Path, folder: Path) -> Path:
    """Export the generator, and leave out the discriminators that the checkpoint has."""
    if not (folder / "config.json").exists():
        univnet("export", "--checkpoint", checkpoint, "--to", "folder", "--output", folder)
    (folder / "discriminator.safetensors").unlink(missing_ok=True)
    return folder


def curve(folder: Path) -> dict[int, float]:
    """Return a run's validation M-STFT by generator updates; the last value where there are several."""
    metrics = folder / "version_0" / "metrics.csv"
    if not metrics.exists():
        return {}
    with metrics.open() as file:
        return {int(row["step"]): float(row["val/stft"]) for row in csv.DictReader(file) if row.get("val/stft")}


def main(speech: Path, runs: Path, config: Path, checkpoint: Path) -> None:
    """Run what is missing, and write the table and the picture."""
    generator = publish(checkpoint, runs / "generator")
    curves: dict[int, list[dict[int, float]]] = {}
    for warmup in WARMUPS:
        for seed in SEEDS:
            folder = runs / f"warmup{warmup}_seed{seed}"
            if max(curve(folder), default=0) < UPDATES:
                where = ["--trainer.logger.save_dir", runs, "--trainer.logger.name", folder.name]
                where += ["--trainer.logger.version", 0, "--data.root", speech, "--seed_everything", seed]
                start = ["--init_from", generator, "--model.discriminator_warmup", warmup]
                univnet("fit", "--config", config, *COMMON, *where, *start)
            curves.setdefault(warmup, []).append(curve(folder))
    write(curves, runs)


def write(curves: dict[int, list[dict[int, float]]], runs: Path) -> None:
    """Print the table in Markdown, and draw the curves."""
    figure = plt.figure(figsize=(7, 3.5), layout="constrained")
    ax = figure.subplots()
    steps = sorted(set.intersection(*(set(each) for many in curves.values() for each in many)) - {0})
    print("| generator updates | " + " | ".join(f"warm-up of {warmup}" for warmup in curves) + " |")
    print("|---|" + "---|" * len(curves))
    values = {warmup: np.array([[each[step] for step in steps] for each in many]) for warmup, many in curves.items()}
    for place, step in enumerate(steps):
        cells = (f"{of[:, place].mean():.4f} ± {of[:, place].std(ddof=1):.4f}" for of in values.values())
        print(f"| {step} | " + " | ".join(cells) + " |")
    for color, (warmup, of) in enumerate(values.items()):
        ax.plot(steps, of.T, color=f"C{color}", alpha=0.3, linewidth=1)
        ax.plot(steps, of.mean(0), color=f"C{color}", linewidth=2, label=f"warm-up of {warmup} updates")
    ax.set(xlabel="generator updates from the start", ylabel="validation M-STFT")
    ax.legend()
    ax.grid(alpha=0.3)
    figure.savefig(runs / "warmup.png", dpi=130)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))  # type: ignore[arg-type]
