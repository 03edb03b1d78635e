"""Writing audio whole or not at all, at once or piece by piece."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from univnet.common.files import written_whole

Encoding = Literal["16", "24", "float"]
_SUBTYPES = {"16": "PCM_16", "24": "PCM_24", "float": "FLOAT"}
_FORMATS = {".wav": "WAV", ".flac": "FLAC"}


def write_audio(path: str | os.PathLike[str], audio: Tensor, sample_rate: int, encoding: Encoding = "16") -> None:
    """Write mono WAV or FLAC, by the file's ending; the file appears complete or not at all.

    Args:
        path: the file; its folder is made if missing, an older file is replaced.
        audio: (samples,) or (1, samples); clipped to [−1, 1].
        sample_rate: Hz.
        encoding: ``"16"`` or ``"24"`` bits, or ``"float"``, which FLAC has not.

    Raises:
        ValueError: the audio is not mono, or not finite; or there is no such format.
    """
    with audio_writer(path, sample_rate, encoding) as write:
        write(audio)


@contextmanager
def audio_writer(
    path: str | os.PathLike[str], sample_rate: int, encoding: Encoding = "16"
) -> Iterator[Callable[[Tensor], None]]:
    """Yield a function that writes the next piece of audio; the arguments are those of ``write_audio``.

    Memory does not grow with the length. When the block raises, no file appears, and an older one stays.
    """
    import soundfile as sf  # not above: who writes no audio does without it

    path = Path(path)
    if mistake := cannot_write(path, encoding):
        raise ValueError(mistake)
    form = _FORMATS.get(path.suffix.lower(), "WAV")
    with written_whole(path) as partial:
        kind = {"samplerate": sample_rate, "channels": 1, "format": form, "subtype": _SUBTYPES[encoding]}
        with sf.SoundFile(os.fsencode(partial), "w", **kind) as file:
            yield lambda audio: file.write(_samples(audio, path))


def cannot_write(path: str | os.PathLike[str], encoding: str) -> str | None:
    """Return why a file of this name cannot have this encoding, or ``None`` where it can."""
    if encoding not in _SUBTYPES:
        return f"the encoding must be one of {', '.join(_SUBTYPES)}, got {encoding!r}"
    if Path(path).suffix.lower() == ".flac" and encoding == "float":
        return f"{path}: FLAC has no floating-point samples: take 24 bits, or WAV"
    return None


def _samples(audio: Tensor, path: Path) -> np.ndarray:
    samples = audio.detach().float().cpu().numpy()
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1:
        raise ValueError(f"{path}: audio must have the shape (samples,) or (1, samples), got {tuple(audio.shape)}.")
    if not np.isfinite(samples).all():
        raise ValueError(f"{path}: the audio holds NaN or infinity and is not written.")
    return samples.clip(-1, 1)
