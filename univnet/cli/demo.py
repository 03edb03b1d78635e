"""The ``demo`` verb: let the shipped vocoder speak, then train a small one on the speech in data/demo."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from univnet.cli.messages import UsageError

if TYPE_CHECKING:
    from univnet.vocoder import Vocoder

CONFIG = "configs/demo.yaml"
PLAN = "The shipped vocoder speaks first; then a small one is trained on the speech in data/demo, and speaks, too."
HELP = f"""\
usage: univnet demo [--OPTION VALUE ...]
example: univnet demo --trainer.max_steps 100

Let the vocoder in data/pretrained speak, then train a small one on the speech in data/demo and
let it speak, too. It runs in the repository's folder, on the CPU, and writes to runs/demo.

The options are those of `univnet fit` without --ckpt_path and --rollbacks, such as
--trainer.max_steps, the generator updates in all; their defaults are what {CONFIG} says.
A demo that is stopped names the command of `univnet fit` that goes on with its training."""


def run(argv: Sequence[str]) -> None:
    """Train by ``configs/demo.yaml`` with ``argv``'s changes, then vocode the utterances that were kept apart.

    Raises:
        FileNotFoundError: outside the repository, where there is no such configuration.
        UsageError: rollbacks are asked for.
    """
    if {"-h", "--help", "--help.all"} & set(argv):
        print(HELP)
        return
    from univnet.cli.runs.resuming import Resuming, carried  # only now: the help needs no torch
    from univnet.cli.training import TrainingCLI
    from univnet.vocoder import Vocoder

    if not Path(CONFIG).is_file():
        raise FileNotFoundError(f"the demo needs {CONFIG} and data/demo: run it in the repository's folder")
    print(f"{PLAN}\n", file=sys.stderr)  # where what Lightning says comes next
    cli = TrainingCLI(args=["--config", CONFIG, *argv], run=False)
    if cli.config.rollbacks:
        raise UsageError(f"the demo makes no rollbacks: leave --rollbacks out, or use `univnet fit --config {CONFIG}`")
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    carry = Resuming(carried(cli.parser, cli.config))  # so that `univnet fit` can go on
    trainer.callbacks.append(carry)  # type: ignore[attr-defined]
    folder = Path(trainer.log_dir or ".")
    [before] = trainer.validate(model, data, verbose=False)
    kept_apart = [file.path for file in data.validation_dataset.files]
    _speak(Vocoder.from_pretrained("demo"), kept_apart, folder / "pretrained")
    print(f"The shipped vocoder (data/pretrained) has spoken {len(kept_apart)} recordings that it was not trained on:")
    print(f"  {folder / 'pretrained'}\n")
    try:
        trainer.fit(model, data)
    except BaseException:  # a signal ends it by SystemExit
        if any((folder / "checkpoints").glob("*.ckpt")):
            command = ["univnet", "fit", "--config", CONFIG, *argv, "--ckpt_path", str(folder)]
            print(f"univnet: the demo's training goes on with: {shlex.join(command)}", file=sys.stderr)
        raise
    best, last = (folder / "checkpoints" / name for name in ("best.ckpt", "last.ckpt"))
    checkpoint = best if best.exists() else last  # a run cut short may not have validated
    [after] = trainer.validate(model, data, verbose=False, ckpt_path=checkpoint, weights_only=True)

    _speak(Vocoder.from_checkpoint(checkpoint), kept_apart, folder / "speech")
    start, end = before["val/stft"], after["val/stft"]
    tensorboard = Path(sys.executable).with_name("tensorboard")
    print(
        f"\nDone: {trainer.global_step} generator updates.\n"
        f"  validation M-STFT   {start:.3f} before, {end:.3f} after: {1 - end / start:.0%} lower\n"
        f"  watch               {tensorboard} --logdir {folder.parent}\n"
        f"  checkpoint          {checkpoint}\n"
        f"  speech              {folder / 'speech'}: {len(kept_apart)} utterances it never trained on, as WAV and as\n"
        f"                      PNG (spectrograms beside the real ones); the recordings are in {kept_apart[0].parent}\n"
        f"  shipped vocoder     {folder / 'pretrained'}: the same utterances, for comparison"
    )


def _speak(vocoder: "Vocoder", recordings: Sequence[Path], folder: Path) -> None:
    from univnet.cli.synthesize import synthesize

    for path in recordings:
        synthesize(vocoder, path, folder, picture=True)
