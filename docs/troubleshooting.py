"""The pictures and figures of docs/troubleshooting.md: ``python docs/troubleshooting.py RUNS``.

Short runs of a small model on data/demo that provoke each symptom, and the same with its mend, in the folder RUNS; what
it holds already is not run again.
"""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import fine_tuning
import numpy as np
import small_runs
import soundfile as sf
import torch
from small_runs import Run, finish, panels, save, tensorboard, told
from torch import Tensor

from univnet import Vocoder
from univnet.audio import MelFormat
from univnet.audio.picture import mel_picture
from univnet.data import check_files, read_manifest
from univnet.metrics import METRICS

DEMO = small_runs.DOCS.parent / "data" / "demo"
PRETRAINED = small_runs.DOCS.parent / "data" / "pretrained"
APART = ("ru_0222", "ru_0323", "ru_0518", "ru_0609")  # recordings of the demo that no model heard
UPDATES, KEPT = 160, 40  # of the run that is well, and how often it keeps a checkpoint
SHORT = 100  # updates of a run that is not
WARMED = "--model.discriminator_warmup", 100
TUNING = ["--config", str(small_runs.DOCS.parent / "configs" / "demo.yaml"), "--data.batch_size", "4"]
FORMAT = "univnet,sample_rate=16000,n_mels=80,log=log10"
BUDGET = 1400 * 2**20  # bytes, for the search; a process may request half as much again
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({BUDGET * 3 // 2},) * 2); "


def well(runs: Path) -> Run:
    """Return the run that the others are compared with."""
    return Run(runs / "well", "--trainer.max_steps", UPDATES, "--checkpoint_every.every_n_train_steps", KEPT)


def nonfinite(runs: Path) -> dict[str, object]:
    """A learning rate of the discriminator's that is much too high, one that is too high by far, and the mend."""
    high, ended = (
        Run(runs / f"nan_{rate}", "--trainer.max_steps", SHORT, "--model.discriminator_lr", rate) for rate in (10, 100)
    )
    shown = {"discriminator_lr 10": high, "discriminator_lr 2e-4": well(runs)}
    figure, axes = panels(3)
    for ax, tag in zip(axes, ("generator/nonfinite", "discriminator/loss", "generator/adversarial"), strict=True):
        tensorboard(ax, tag, shown)
        if tag != "generator/nonfinite":
            ax.set_yscale("log")
    save(figure, "nan")
    tag = "generator/nonfinite"
    return {"status": ended.status, "said": ended.said, "skipped": shown_end(shown, tag), "stft": shown_end(shown)}


def shown_end(shown: dict[str, Run], tag: str = "generator/stft") -> dict[str, float]:
    """Return the mean of each run's last values."""
    return {name: round(run.at_end(tag), 3) for name, run in shown.items()}


def discriminator(runs: Path) -> dict[str, object]:
    """One that wins, one that never starts, and one that is well."""
    short = ("--trainer.max_steps", SHORT)
    wins = Run(runs / "wins", *short, "--model.discriminator_lr", 5e-3, "--model.generator_lr", 1e-5)
    never = Run(runs / "never", *short, "--model.discriminator_lr", 1e-7)
    shown = {"it wins": wins, "it never starts": never, "well": well(runs)}
    tags = ["discriminator/loss", "discriminator/real_score", "discriminator/fake_score", "generator/adversarial"]
    figure, axes = panels(4)
    for ax, tag in zip(axes, tags, strict=True):
        tensorboard(ax, tag, shown, 0.6)
    save(figure, "discriminator")
    return {tag: shown_end(shown, tag) for tag in tags}


def memory(runs: Path) -> dict[str, object]:
    """What happens within a gibibyte, and which size fits there."""
    record = runs / "memory" / "found.json"
    if not record.exists():
        where = [str(small_runs.CONFIG), *small_runs.DATA, "--trainer.default_root_dir", str(record.parent)]
        where += ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false"]
        search = ["find-batch-size", "--config", *where, "--mode", "binsearch", "--memory-budget", str(BUDGET)]
        limited("", *search)
        found = json.loads((record.parent / "batch_size.json").read_text())
        for size in (found["size"], 16 * found["largest"]):
            more = ["--data.batch_size", str(size), "--trainer.max_steps", "3", "--trainer.limit_val_batches", "0"]
            found[f"at {size}"] = limited(LIMITED, "fit", "--config", *where, "--data.drop_last", "false", *more)
        record.write_text(json.dumps(found))
    found = json.loads(record.read_text())
    trials = sorted(found["trials"], key=lambda each: each["size"])
    figure, [ax] = panels(1)
    for fits, mark in ((True, "o-"), (False, "x")):
        here = [each for each in trials if each["fits"] == fits]
        if fits:
            ax.plot([e["size"] for e in here], [e["memory"] / 2**20 for e in here], mark, label="fits")
        else:
            ax.plot([e["size"] for e in here], [found["budget"] / 2**20] * len(here), mark, label="does not fit")
    ax.axhline(found["budget"] / 2**20, linestyle=":", color="grey", label="budget")
    finish(ax, "peak memory / MiB", "batch size")
    save(figure, "memory")
    return {key: value for key, value in found.items() if key.startswith("at ") or key in ("size", "largest")}


def limited(first: str, *argv: str) -> tuple[int, str]:
    """Run a verb in a process of its own, after ``first``; return its exit status and the last line on stderr."""
    code = f"{first}from univnet.cli import main; import sys; main(sys.argv[1:])"
    ended = subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True)
    return ended.returncode, ended.stderr.strip().splitlines()[-1]


def loader(runs: Path) -> dict[str, object]:
    """Long OGG files at 48 kHz, read as they are, from a cache, and prepared."""
    slow, prepared = runs / "ogg", runs / "prepared"
    if not slow.exists():
        slow.mkdir(parents=True)
        paths = sorted(DEMO.glob("*.flac"))
        for number in range(4):
            audio = np.concatenate([sf.read(path)[0] for path in paths[number::4]])
            with sf.SoundFile(slow / f"{number}.ogg", "w", 48000, 1) as file:
                for place in range(0, len(audio), 4096):  # libsndfile's encoder crashes at long pieces
                    file.write(np.repeat(audio[place : place + 4096], 3))
    if not prepared.exists():
        told(["prepare", str(slow), "--output", str(prepared), "--sample-rate", "16000", "--workers", "0", "--quiet"])
    common = ["--trainer.max_steps", "30", "--trainer.limit_val_batches", "0", "--trainer.log_every_n_steps", "5"]
    common += ["--data.validation", "0", "--trainer.enable_checkpointing", "false"]
    of = {"as they are": [], "data.cache memory": ["--data.cache", "memory"]}
    found = {
        name: Run(runs / f"loader_{number}", *common, "--data.manifest", "null", "--data.root", slow, *more)
        for number, (name, more) in enumerate(of.items())
    }
    found["univnet prepare"] = Run(
        runs / "loader_2", *common, "--data.root", "null", "--data.manifest", prepared / "train.tsv"
    )
    tag = "throughput/audio_seconds_per_second"
    figure, [ax] = panels(1)
    tensorboard(ax, tag, found)
    ax.set_ylim(bottom=0)
    save(figure, "loader")
    return {name: round(float(np.median(run.scalars(tag)[1])), 2) for name, run in found.items()}


def resumed(runs: Path) -> dict[str, object]:
    """The same run gone on with by its checkpoint, by the generator's weights alone, and by these with a warm-up."""
    whole, at, published = well(runs), UPDATES - KEPT, runs / "published"
    place = whole.folder / "checkpoints" / f"step_{at}.ckpt"
    if not published.exists():
        Vocoder.from_checkpoint(place).save_pretrained(published, {"data": "data/demo", "license": "other"})
    by_state = Run(runs / "by_state", "--ckpt_path", place, "--trainer.max_steps", UPDATES)
    new = ("--init_from", published, "--trainer.max_steps", KEPT)
    by_weights, warmed = Run(runs / "by_weights", *new), Run(runs / "warmed", *new, *WARMED)
    shown = {"not stopped": whole, "--ckpt_path": by_state, "--init_from": by_weights, "with a warm-up": warmed}
    figure, axes = panels(3)
    tags, found = ("generator/stft", "generator/adversarial", "discriminator/loss"), {}
    for ax, tag in zip(axes, tags, strict=True):
        for (name, run), colour in zip(shown.items(), ("0.7", *small_runs.COLOURS[1::-1], "#009988"), strict=True):
            steps, values = run.scalars(tag)
            steps = steps + (at if run in (by_weights, warmed) else 0)
            here = steps > at - KEPT
            ax.plot(steps[here], values[here], color=colour, label=name)
            found[f"{name}: {tag}"] = round(float(values[steps > at][:10].mean()), 3)
        finish(ax, tag)
    save(figure, "resumed")
    apart = [np.abs(whole.scalars(tag)[1][at:] - by_state.scalars(tag)[1][-KEPT:]).max() for tag in tags]
    return {"largest difference": float(max(apart)), "means of ten": found}


def mels(runs: Path) -> dict[str, object]:
    """Log10 mels taken for natural logarithms, and converted."""
    vocoder = Vocoder.from_pretrained(PRETRAINED)
    form = MelFormat.named(FORMAT)

    def theirs(mel: Tensor) -> Tensor:
        return mel / np.log(10)

    ways: dict[str, Callable[[Tensor], Tensor]] = {
        "as they are": theirs,
        "--mel-format": lambda mel: form.convert(theirs(mel), vocoder.mel),
    }
    show(vocoder, ways["as they are"], "mels")
    refused = runs / "decibels.npy"
    runs.mkdir(exist_ok=True)
    np.save(refused, (vocoder.mel(recording(APART[0]))[0] * 20 / np.log(10)).numpy())
    wanted = ["synthesize", "--checkpoint", str(PRETRAINED), "--output", str(runs / "out"), str(refused)]
    own = {"own mels": judged(vocoder, lambda mel: mel)}
    return own | {name: judged(vocoder, way) for name, way in ways.items()} | {"decibels": told(wanted)}


def recording(name: str, vocoder: Vocoder | None = None) -> Tensor:
    """Return a recording of the demo (1, 1, samples)."""
    return torch.from_numpy(sf.read(DEMO / f"{name}.flac", dtype="float32")[0])[None, None]


def judged(vocoder: Vocoder, way: Callable[[Tensor], Tensor]) -> dict[str, float]:
    """Return the metrics over the recordings that no model heard, of their mels after ``way``."""
    found = []
    for name in APART:
        audio = recording(name)
        fake = vocoder(way(vocoder.mel(audio)))
        scores = [METRICS[each](fake[0, 0], audio[0, 0], vocoder.sample_rate) for each in ("mstft", "pesq")]
        found.append([*scores, hum(fake[0, 0].numpy(), vocoder.sample_rate, vocoder.mel.hop_length)])
    return dict(zip(("M-STFT", "PESQ", "hum"), np.round(np.mean(found, 0), 3).tolist(), strict=True))


def hum(audio: np.ndarray, rate: int, hop: int) -> float:
    """Return by how many dB the multiples of the frame rate stand out of the spectrum."""
    size = 16 * hop  # so that they lie on every 16th bin
    pieces = np.lib.stride_tricks.sliding_window_view(audio, size)[:: size // 4] * np.hanning(size)
    level = 10 * np.log10(np.square(np.abs(np.fft.rfft(pieces))).mean(0) + 1e-12)
    return float(np.mean(level[16:-16:16] - (level[8:-24:16] + level[24:-8:16]) / 2))


def show(vocoder: Vocoder, way: Callable[[Tensor], Tensor], name: str) -> None:
    """Draw what the vocoder makes of a recording's mel after ``way``, beside the recording."""
    audio = recording(APART[0])[..., : 3 * vocoder.sample_rate // 2]
    fake = vocoder(way(vocoder.mel(audio)))
    real, generated = (vocoder.mel(each)[0].numpy() for each in (audio, fake))
    figure = mel_picture(real, generated, vocoder.mel.config)
    figure.set_size_inches(5.5, 4)
    save(figure, name)


def buzz(runs: Path) -> dict[str, object]:
    """The same model after some updates and after many."""
    run, found = well(runs), {}
    for step in (KEPT, UPDATES):
        vocoder = Vocoder.from_checkpoint(run.folder / "checkpoints" / f"step_{step}.ckpt")
        found[f"{step} updates"] = judged(vocoder, lambda mel: mel)
        if step == KEPT:
            show(vocoder, lambda mel: mel, "buzz")
    found["pretrained"] = judged(Vocoder.from_pretrained(PRETRAINED), lambda mel: mel)
    found["recordings"] = {"hum": round(np.mean([hum(recording(n)[0, 0].numpy(), 16000, 256) for n in APART]), 3)}
    return found


def metallic(runs: Path) -> dict[str, object]:
    """Mels as an acoustic model predicts them, before and after fine-tuning on such."""
    vocoder, folder = Vocoder.from_pretrained(PRETRAINED), runs / "predicted"
    files = check_files(read_manifest(DEMO / "manifest.tsv"), "header")[0]
    train, apart = fine_tuning.write_degraded(files, vocoder.mel, folder)
    run = Run(
        *(runs / "metallic", *TUNING, "--config", fine_tuning.OVERLAY, *fine_tuning.OPTIONS, "--init_from", PRETRAINED),
        *("--data.manifest", train, "--data.validation_manifest", apart, "--trainer.max_steps", SHORT),
        *(
            "--model.generator_lr",
            2e-4,
            "--trainer.val_check_interval",
            max(SHORT // 4, 1),
            "--trainer.log_every_n_steps",
            5,
        ),
        *("--trainer.enable_progress_bar", "false", "--model.discriminator_start", 10**6, "--samples.count", 0),
    )
    show(vocoder, lambda mel: fine_tuning.degraded(mel[0], 0)[None], "metallic")
    tuned = Vocoder.from_checkpoint(run.last)
    return {
        "own mels": fine_tuning.scores(vocoder, apart, False),
        "predicted": fine_tuning.scores(vocoder, apart, True),
        "fine-tuned": fine_tuning.scores(tuned, apart, True),
    }


SYMPTOMS = (nonfinite, metallic, buzz, discriminator, memory, loader, resumed, mels)


def main(runs: Path) -> dict[str, dict[str, object]]:
    """Run what is missing, write the pictures, and print the figures, which are returned."""
    found = {}
    for symptom in SYMPTOMS:
        found[symptom.__name__] = symptom(runs)
        print(symptom.__name__, json.dumps(found[symptom.__name__], ensure_ascii=False), flush=True)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
