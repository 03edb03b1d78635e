"""The ``demo`` verb: let the shipped vocoder speak, then train a small one on the speech in data/demo."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from univnet.vocoder import Vocoder

CONFIG = "configs/demo.yaml"
HELP = f"""\
usage: univnet demo [--OPTION VALUE ...]
example: univnet demo --trainer.max_steps 100

Let the vocoder in data/pretrained speak, then train a small one on the speech in data/demo and
let it speak, too. It runs in the repository's folder, on the CPU, and writes to runs/demo.

The options are those of `univnet fit`, such as --trainer.max_steps, the generator updates in all;
their defaults are what {CONFIG} says."""


def run(argv: Sequence[str]) -> None:
    """Train by ``configs/demo.yaml`` with ``argv``'s changes, then vocode the utterances that were kept apart.

    Raises:
        FileNotFoundError: outside the repository, where there is no such configuration.
    """
    if {"-h", "--help", "--help.all"} & set(argv):
        print(HELP)
        return
    from univnet.cli.training import TrainingCLI  # only now: the help needs no torch
    from univnet.vocoder import Vocoder

    if not Path(CONFIG).is_file():
        raise FileNotFoundError(f"the demo needs {CONFIG} and data/demo: run it in the repository's folder")
    cli = TrainingCLI(args=["--config", CONFIG, *argv], run=False)
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    folder = Path(trainer.log_dir or ".")
    [before] = trainer.validate(model, data, verbose=False)
    kept_apart = [file.path for file in data.validation_dataset.files]
    _speak(Vocoder.from_pretrained("demo"), kept_apart, folder / "pretrained")
    print(f"The vocoder in data/pretrained, which never heard them, has spoken {len(kept_apart)} utterances:")
    print(f"  {folder / 'pretrained'}\n")
    trainer.fit(model, data)
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
        f"                      PNG (spectrograms beside the real ones); the recordings are in {kept_apart[0].parent}"
    )


def _speak(vocoder: "Vocoder", recordings: Sequence[Path], folder: Path) -> None:
    from univnet.cli.synthesize import synthesize

    for path in recordings:
        synthesize(vocoder, path, folder, picture=True)
