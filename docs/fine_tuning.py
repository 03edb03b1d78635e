"""Does fine-tuning mend degraded mels? ``python docs/fine_tuning.py MANIFEST APART RUNS CONFIG CHECKPOINT``.

The mels of the recordings in MANIFEST are degraded as an acoustic model's are: smoothed over time and bands, with
noise. For each seed the vocoder in CHECKPOINT (also a folder of ``save_pretrained``), trained by CONFIG, is fine-tuned
on them. Printed is how good it sounds on the recordings in APART, which it must not have heard, before and after; way
back is the share of what degrading cost that fine-tuning regained. What RUNS holds already is not done again.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from univnet import LogMelSpectrogram, Vocoder
from univnet.audio import shown
from univnet.cli import main as univnet
from univnet.data import AudioFile, check_files, read_manifest
from univnet.metrics import METRICS

SEEDS = (1, 2, 3)
UPDATES = 600  # generator updates of a run
SMOOTH = 1.0, 1.0  # standard deviations of the Gaussian, in frames and in bands
NOISE = 0.1  # standard deviation, natural log
JUDGES = ("mstft", "pesq")
OVERLAY = Path(__file__).parents[1] / "configs" / "finetune.yaml"
AVERAGE = '[{"class_path": "univnet.gan.ExponentialMovingAverage", "init_args": {"decay": 0.99}}]'
OPTIONS = [
    *("--data.root", "null", "--data.batch_size", "4", "--data.check", "header", "--model.discriminator_warmup", "0"),
    *("--trainer.val_check_interval", str(UPDATES), "--trainer.enable_progress_bar", "false"),
    *("--model.generator_lr", "2e-4", "--trainer.callbacks", AVERAGE),
    *("--checkpoint_every.every_n_train_steps", "1000000"),
]


def degraded(mel: Tensor, seed: int) -> Tensor:
    """Return a mel (n_mels, frames) as an acoustic model would predict it."""
    for axis, deviation in ((1, SMOOTH[0]), (0, SMOOTH[1])):
        reach = int(3 * deviation + 0.5)
        kernel = torch.exp(-0.5 * (torch.arange(-reach, reach + 1) / deviation) ** 2)
        rows = mel if axis else mel.T
        padded = F.pad(rows[:, None], (reach, reach), "replicate")
        rows = F.conv1d(padded, (kernel / kernel.sum())[None, None])[:, 0]
        mel = rows if axis else rows.T
    return mel + NOISE * torch.randn(mel.shape, generator=torch.Generator().manual_seed(seed))


def own_mel(file: AudioFile, mel: LogMelSpectrogram) -> tuple[Tensor, Tensor]:
    """Return a recording (1, 1, samples) and its mel (n_mels, frames)."""
    audio = file.read(0, file.length(mel.sample_rate), mel.sample_rate)[None]
    return audio, mel(audio)[0]


def write_degraded(files: list[AudioFile], mel: LogMelSpectrogram, folder: Path, name: str) -> Path:
    """Write the degraded mels, and a table with them, which is returned."""
    lines = ["path\tmel"]
    for file in files:
        target = folder / "mels" / f"{name}_{len(lines)}.npy"
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            values = degraded(own_mel(file, mel)[1], seed=len(lines)).clamp(min=float(np.log(mel.floor)))
            np.save(target, values.numpy())
        lines.append(f"{shown(file.path.resolve())}\tmels/{target.name}")
    table = folder / f"{name}.tsv"
    table.write_text("\n".join(lines) + "\n")
    return table


def scores(vocoder: Vocoder, table: Path, given: bool) -> dict[str, float]:
    """Return the means of the metrics over the recordings of a table, of their own mels or of the given ones."""

    def each() -> Iterator[list[float]]:
        for file in check_files(read_manifest(table), "header")[0]:
            audio, mel = own_mel(file, vocoder.mel)
            assert file.mel is not None
            used = torch.from_numpy(np.load(file.mel)) if given else mel
            fake = vocoder(used[None])[0, 0]
            yield [METRICS[name](fake, audio[0, 0], vocoder.sample_rate) for name in JUDGES]

    return dict(zip(JUDGES, np.nanmean(list(each()), axis=0).tolist(), strict=True))


def load(path: Path) -> Vocoder:
    """Load a vocoder from a checkpoint or a folder."""
    return Vocoder.from_pretrained(path) if path.is_dir() else Vocoder.from_checkpoint(path)


def main(manifest: Path, apart: Path, runs: Path, config: Path, checkpoint: Path) -> dict[str, list[dict[str, float]]]:
    """Run what is missing, and print the table."""
    vocoder = load(checkpoint)
    train, apart = (
        write_degraded(check_files(read_manifest(each), "header")[0], vocoder.mel, runs, name)
        for each, name in ((manifest, "train"), (apart, "apart"))
    )
    found = {"own mels": [scores(vocoder, apart, False)], "degraded": [scores(vocoder, apart, True)], "fine-tuned": []}
    for seed in SEEDS:
        record = runs / f"seed{seed}.json"
        if not record.exists():
            where = ["--trainer.logger.init_args.save_dir", runs, "--trainer.logger.init_args.name", f"seed{seed}"]
            where += ["--data.manifest", train, "--data.validation_manifest", apart, "--seed_everything", seed]
            start = ["--init_from", checkpoint, "--trainer.max_steps", UPDATES]
            univnet(["fit", *map(str, ["--config", config, "--config", OVERLAY, *OPTIONS, *where, *start])])
            newest = max((runs / f"seed{seed}").rglob("last.ckpt"), key=lambda path: path.stat().st_mtime)
            record.write_text(json.dumps(scores(load(newest), apart, True)))
        found["fine-tuned"].append(json.loads(record.read_text()))
    write(found)
    return found


def write(found: dict[str, list[dict[str, float]]]) -> None:
    """Print the table in Markdown."""
    print("| | " + " | ".join(METRICS[name].title for name in JUDGES) + " |\n|---|" + "---|" * len(JUDGES))
    for name, many in found.items():
        print(f"| {name} | " + " | ".join(_mean([each[metric] for each in many]) for metric in JUDGES) + " |")
    cells = []
    for metric in JUDGES:
        best, worst = (found[name][0][metric] for name in ("own mels", "degraded"))
        cells.append(_mean([(each[metric] - worst) / (best - worst) for each in found["fine-tuned"]]))
    print("| way back | " + " | ".join(cells) + " |")


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.3f}" + (f" ± {np.std(values, ddof=1):.3f}" if len(values) > 1 else "")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))  # type: ignore[call-arg]
