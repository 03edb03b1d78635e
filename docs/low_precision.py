"""How far audio in low precision is from float32's: ``python docs/low_precision.py VOCODER SPEECH [DEVICE]``.

VOCODER is a folder that ``save_pretrained`` wrote, with the names of recordings that it was not trained on in
``held_out.txt``; those of them that lie in SPEECH are vocoded on DEVICE (default: cpu) from their own mels, with equal
noise in each type, and compared with the audio of float32 on the CPU. A table in Markdown is printed.
"""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from univnet import Vocoder
from univnet.audio import audio_length, read_segment
from univnet.metrics import METRICS
from univnet.models.streaming import FrameNoise

TYPES = (torch.float32, torch.bfloat16, torch.float16)


def spoken(vocoder: Vocoder, mel: Tensor, noise: Tensor) -> Tensor:
    """Return the audio in float32 on the CPU. The noise is given, because each device draws its own."""
    weight = next(vocoder.generator.parameters())
    with torch.inference_mode():
        audio: Tensor = vocoder.generator(*(each.to(weight.device, weight.dtype) for each in (mel, noise)))
    return audio.float().cpu()


def compare(folder: Path, speech: Path, device: str) -> dict[str, tuple[float, float, float]]:
    """Return by type: the difference's energy below the audio's in dB, its largest value, and M-STFT to the recording.

    The first is of all recordings together, the last their mean.
    """
    plain = Vocoder.from_pretrained(folder)
    rate, names = plain.sample_rate, (folder / "held_out.txt").read_text().split()
    paths = [speech / name for name in sorted(names) if (speech / name).is_file()]
    real = [read_segment(path, 0, audio_length(path, rate), rate)[None] for path in paths]
    mels = [plain.mel(each) for each in real]
    noises = [FrameNoise(1, plain.generator.noise_channels, 0, mel.dtype, "cpu").take(mel.shape[2]) for mel in mels]
    expected = [spoken(plain, *each) for each in zip(mels, noises, strict=True)]
    found = {}
    for dtype in TYPES:
        vocoder = Vocoder.from_pretrained(folder).to(device, dtype)
        audio = [spoken(vocoder, *each) for each in zip(mels, noises, strict=True)]
        off = torch.cat([a - b for a, b in zip(audio, expected, strict=True)], dim=2)
        energy = float(torch.cat(expected, dim=2).square().sum() / off.square().sum())
        heard = [
            METRICS["mstft"](a[0, 0].numpy(), b[0, 0, : a.shape[2]].numpy(), rate)
            for a, b in zip(audio, real, strict=True)
        ]
        below = 10 * math.log10(energy)
        found[str(dtype).removeprefix("torch.")] = (below, float(off.abs().max()), sum(heard) / len(heard))
    return found


def main(folder: Path, speech: Path, device: str = "cpu") -> None:
    """Print the table."""
    print(f"| {device} | difference from float32 on the CPU | largest | M-STFT |")
    print("|---|---|---|---|")
    for name, (below, largest, mstft) in compare(folder, speech, device).items():
        print(f"| {name} | {'none' if math.isinf(below) else f'-{below:.1f} dB'} | {largest:.2g} | {mstft:.4f} |")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
