"""The ``synthesize`` verb: recordings or mel-spectrograms in, WAV files out."""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from univnet.audio import audio_length, read_segment, write_audio
from univnet.callbacks.pictures import mel_picture
from univnet.vocoder import Vocoder


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments and write one WAV (and, if asked, one picture) an input."""
    parser = argparse.ArgumentParser(prog="univnet synthesize", description=__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, help="recordings (their mel is taken first) or mels as .npy")
    parser.add_argument("--checkpoint", required=True, type=Path, help="a checkpoint that training wrote")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write to; made where missing")
    parser.add_argument("--seed", type=int, default=0, help="of the input noise (default: 0)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--pictures", action="store_true", help="also draw each recording's mel beside the output's")
    options = parser.parse_args(argv)
    vocoder = Vocoder.from_checkpoint(options.checkpoint).to(options.device)
    options.output.mkdir(parents=True, exist_ok=True)
    for path in options.inputs:
        audio = synthesize(vocoder, path, options.output, options.seed, options.pictures)
        print(f"{audio}")


def synthesize(vocoder: Vocoder, path: Path, folder: Path, seed: int | None = 0, picture: bool = False) -> Path:
    """Vocode one file into ``folder`` and return the WAV's path; with ``picture``, draw a PNG beside it.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no audio, or no mel-spectrogram of the vocoder's shape.
    """
    mel = _read_mel(vocoder, path)
    audio = vocoder(mel.to(next(vocoder.generator.parameters()).device), seed=seed).cpu()
    target = folder / f"{path.stem}.wav"
    write_audio(target, audio[0, 0], vocoder.sample_rate)
    if picture:
        generated = vocoder.mel.cpu()(audio)[0].numpy()
        figure = mel_picture(mel[0].numpy(), generated, vocoder.mel.config, title=path.name)
        figure.savefig(target.with_suffix(".png"), dpi=110)
    return target


def _read_mel(vocoder: Vocoder, path: Path) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.suffix == ".npy":
        mel = torch.from_numpy(np.load(path, allow_pickle=False)).float()
        bands = vocoder.mel.config["n_mels"]
        if mel.ndim != 2 or len(mel) != bands:
            raise ValueError(f"{path} has shape {tuple(mel.shape)}; this vocoder takes ({bands}, frames)")
        return mel[None]
    length = audio_length(path, vocoder.sample_rate)
    audio = read_segment(path, 0, length, vocoder.sample_rate)
    return vocoder.mel.cpu()(audio.reshape(1, 1, -1))
