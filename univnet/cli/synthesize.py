"""The ``synthesize`` verb: recordings or mel-spectrograms in, WAV files out."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from univnet.audio import audio_length, read_segment, write_audio
from univnet.cli.messages import UsageError, VerbParser
from univnet.common.files import written_whole
from univnet.common.mistakes import Mistakes
from univnet.vocoder import Vocoder


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments and write one WAV (and, if asked, one picture) per input.

    Raises:
        UsageError: for arguments that do not fit; before anything is written.
        FileNotFoundError, ValueError: for an input that does not.
    """
    parser = VerbParser(prog="univnet synthesize", description=__doc__)
    parser.add_argument("inputs", nargs="+", type=Path, help="recordings (their mel is taken first) or mels as .npy")
    parser.add_argument("--checkpoint", required=True, type=Path, help="a checkpoint that training wrote")
    parser.add_argument("--output", required=True, type=Path, help="the folder to write to; made where missing")
    parser.add_argument(
        "--weights",
        choices=("auto", "averaged", "raw"),
        default="auto",
        help="which of the checkpoint's (default: the averaged ones if there are any)",
    )
    parser.add_argument("--seed", type=int, default=0, help="of the input noise (default: 0)")
    parser.add_argument("--device", default="cpu", help="torch device (default: cpu)")
    parser.add_argument("--pictures", action="store_true", help="also draw each recording's mel beside the output's")
    options = parser.parse_args(argv)
    _check_targets(options.inputs, options.output)
    vocoder = Vocoder.from_checkpoint(options.checkpoint, options.weights)
    try:
        vocoder.to(options.device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {options.device} cannot be used here: {str(error).splitlines()[0]}") from error
    options.output.mkdir(parents=True, exist_ok=True)
    for path in options.inputs:
        print(synthesize(vocoder, path, options.output, options.seed, options.pictures))


def synthesize(vocoder: Vocoder, path: Path, folder: Path, seed: int | None = 0, picture: bool = False) -> Path:
    """Vocode one file into ``folder`` and return the WAV's path; with ``picture``, draw a PNG beside it.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no audio, or no mel-spectrogram of the vocoder's shape.
    """
    device = next(vocoder.generator.parameters()).device
    mel = _read_mel(vocoder, path).to(device)
    audio = vocoder(mel, seed=seed)
    target = _target(path, folder)
    write_audio(target, audio[0, 0], vocoder.sample_rate)
    if picture:
        from univnet.audio.picture import mel_picture  # draws with matplotlib, and brings Lightning

        generated = vocoder.mel(audio)[0].cpu().numpy()
        figure = mel_picture(mel[0].cpu().numpy(), generated, vocoder.mel.config, title=path.name)
        with written_whole(target.with_suffix(".png")) as partial:
            figure.savefig(partial, format="png", dpi=110)
    return target


def _target(path: Path, folder: Path) -> Path:
    return folder / f"{path.stem}.wav"


def _check_targets(inputs: Sequence[Path], folder: Path) -> None:
    mistakes = Mistakes("synthesize")
    mistakes.unless(folder.is_dir() or not folder.exists(), f"--output {folder} is a file: name a folder")
    sources: dict[Path, Path] = {}
    for path in inputs:
        target = _target(path, folder)
        first = sources.setdefault(target, path)
        mistakes.unless(path.is_file(), f"there is no file {path}")
        mistakes.unless(
            target.resolve() != path.resolve(), f"{path} would be overwritten: give another --output folder"
        )
        mistakes.unless(first is path, f"{first} and {path} would both be written to {target}: run them one by one")
    mistakes.raise_all(UsageError)


def _read_mel(vocoder: Vocoder, path: Path) -> Tensor:
    """Return the log-mel (1, n_mels, frames) that ``path`` holds, or that of the recording that it is."""
    if path.suffix == ".npy":
        return _load_mel(path, vocoder.mel.n_mels)
    audio = read_segment(path, 0, audio_length(path, vocoder.sample_rate), vocoder.sample_rate)
    if not audio.numel():
        raise ValueError(f"{path} holds no sound: leave it out")
    if not audio.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinity: leave it out")
    audio = F.pad(audio, (0, max(0, vocoder.mel.hop_length - audio.shape[-1])))
    return vocoder.mel(audio.to(vocoder.mel.filters.device)[None])


def _load_mel(path: Path, bands: int) -> Tensor:
    try:
        mel = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file of numbers") from error
    if not isinstance(mel, np.ndarray) or not np.issubdtype(mel.dtype, np.floating):
        raise ValueError(f"{path} does not hold floating-point numbers, as a log-mel-spectrogram does")
    if mel.ndim != 2 or mel.shape[0] != bands or not mel.shape[1]:
        raise ValueError(f"{path} has shape {mel.shape}; this vocoder takes ({bands}, frames)")
    if not np.isfinite(mel).all():
        raise ValueError(f"{path} holds NaN or infinity: leave it out")
    return torch.from_numpy(mel).float()[None]
