"""Do the learning rates pay that the range test suggests? ``python docs/learning_rates.py SPEECH RUNS``.

For each seed: a range test, then a training run at the default rates, at each method's suggestion, and with cyclical
rates from the same curves. SPEECH is a folder of recordings; what RUNS holds already is not run again. The table and
picture of docs/learning_rates.md are the last thing written.
"""

import csv
import json
import subprocess
import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import yaml

SEEDS = (1, 2, 3)
UPDATES = 200
METHODS = ("steepest", "steep", "valley", "slide", "minimum", "edge")
COMMON = [
    *("--config", "configs/demo.yaml", "--data.manifest", "null", "--data.batch_size", "4", "--data.check", "header"),
    *("--data.validation", "8", "--model.discriminator_start", "0", "--model.generator_lr", "1e-4"),
    *("--model.discriminator_lr", "1e-4", "--trainer.max_steps", str(UPDATES)),
    *("--trainer.val_check_interval", str(UPDATES), "--trainer.enable_checkpointing", "false"),
    *("--trainer.enable_progress_bar", "false", "--trainer.logger", "CSVLogger"),
]


def univnet(verb: str, speech: Path, folder: Path, seed: int, *options: str) -> None:
    """Run a verb that logs into ``folder``."""
    where = ["--trainer.logger.save_dir", str(folder.parent), "--trainer.logger.name", folder.name]
    where += ["--trainer.logger.version", "0", "--data.root", str(speech), "--seed_everything", str(seed)]
    subprocess.run([Path(sys.executable).with_name("univnet"), verb, *COMMON, *where, *options], check=True)


def arms(found: dict, folder: Path) -> dict[str, list[str]]:
    """Return the options of every training run, by name."""
    arms: dict[str, list[str]] = {"default": []}
    for method in METHODS:
        rates = {player: curve["suggestions"][method] for player, curve in found["curves"].items()}
        arms[method] = [word for player, rate in rates.items() for word in (f"--model.{player}_lr", f"{rate:.3g}")]
    cyclical = {key: value for key, value in found["found"].items() if key.endswith("_schedule")}
    overlay = folder / "cyclical.yaml"
    schedules = {key.removeprefix("model."): value for key, value in cyclical.items()}
    overlay.write_text(yaml.safe_dump({"model": schedules}))
    arms["cyclical"] = ["--config", str(overlay)]
    return arms


def final(folder: Path) -> float | None:
    """Return the run's last validation M-STFT, if it has one."""
    metrics = folder / "version_0" / "metrics.csv"
    if not metrics.exists():
        return None
    with metrics.open() as file:
        values = [float(row["val/stft"]) for row in csv.DictReader(file) if row.get("val/stft")]
    return values[-1] if values else None


def main(speech: Path, runs: Path) -> None:
    """Run what is missing, and write the table and the picture."""
    table: dict[str, dict[int, tuple[str, float]]] = {}
    for seed in SEEDS:
        test = runs / f"find{seed}"
        record = test / "version_0" / "lr_find.json"
        if not record.exists():
            univnet("find-lr", speech, test, seed, "--cyclical", "true")
        for name, options in arms(json.loads(record.read_text()), test).items():
            folder = runs / f"{name}{seed}"
            if final(folder) is None:
                univnet("fit", speech, folder, seed, *options)
            rates = " / ".join(options[1::2]) if name in METHODS else ""
            table.setdefault(name, {})[seed] = rates, final(folder) or float("nan")
            print(name, seed, *table[name][seed], flush=True)
    write(table, runs)


def write(table: dict[str, dict[int, tuple[str, float]]], runs: Path) -> None:
    """Print the table in Markdown, and draw it."""
    print("| rates by | " + " | ".join(f"seed {seed}" for seed in SEEDS) + " | mean ± standard deviation |")
    figure = plt.figure(figsize=(7, 3.5), layout="constrained")
    ax = figure.subplots()
    for place, (name, row) in enumerate(table.items()):
        values = np.array([row[seed][1] for seed in SEEDS])
        cells = " | ".join(f"{value:.3f} ({rates})" if rates else f"{value:.3f}" for rates, value in row.values())
        print(f"| {name} | {cells} | {values.mean():.3f} ± {values.std(ddof=1):.3f} |")
        ax.plot([place] * len(values), values, "o", color="0.5")
        ax.plot([place - 0.2, place + 0.2], [values.mean()] * 2, color="C0", linewidth=3)
    ax.set_xticks(range(len(table)), list(table))
    ax.set(ylabel=f"validation M-STFT after {UPDATES} updates", xlabel="learning rates by (dots: seeds; bar: mean)")
    ax.grid(axis="y", alpha=0.3)
    figure.savefig(runs / "learning_rates.png", dpi=130)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
