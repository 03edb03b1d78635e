"""Reading parts of audio files at the rate that is wanted."""

from math import ceil, gcd
from pathlib import Path

import soundfile as sf
import torch
from torch import Tensor
from torchaudio.functional import resample

_FILTER_WIDTH = 6  # zero crossings of the resampling filter, torchaudio's `lowpass_filter_width`
_ROLLOFF = 0.99
_INEXACT_SEEK = ("OGG", "MP3")  # libsndfile 1.2.2 lands up to some hundred samples off in Vorbis, and unprimed in Opus
_BLOCK = 1 << 20  # frames


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Number of samples that `torchaudio.functional.resample` makes of `samples`: ceil(samples·to / from)."""
    return -(-samples * to_rate // from_rate)


def audio_length(path: str | Path, sample_rate: int) -> int:
    """Length of a file in samples at `sample_rate`, from its header.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not audio that libsndfile reads.
    """
    with _open(path) as file:
        return resampled_length(file.frames, file.samplerate, sample_rate)


def read_segment(path: str | Path, start: int, length: int, sample_rate: int) -> Tensor:
    """Part of a file as mono float32 at `sample_rate`, reading no more than that part.

    The result equals samples start … start + length of the whole file resampled with
    `torchaudio.functional.resample` (to 1e-6). Several channels are averaged. OGG is decoded from its first
    sample on, because libsndfile does not seek in it exactly: convert a large OGG corpus to FLAC.

    Args:
        path: WAV, FLAC, OGG, or what else libsndfile reads.
        start: first sample, counted at `sample_rate`.
        length: number of samples at `sample_rate`.
        sample_rate: Hz, of the result.

    Returns:
        (1, length)

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is unreadable, or has no such samples.
    """
    with _open(path) as file:
        total = resampled_length(file.frames, file.samplerate, sample_rate)
        if start < 0 or length < 0 or start + length > total:
            raise ValueError(
                f"{path} has {total} samples at {sample_rate} Hz: cannot read {length} from sample {start} on."
            )
        if file.samplerate == sample_rate:
            return _read(file, start, start + length)
        # `old` samples become `new`: read whole such blocks, and as many around them as the filter reaches
        divisor = gcd(file.samplerate, sample_rate)
        old, new = file.samplerate // divisor, sample_rate // divisor
        reach = ceil(ceil(_FILTER_WIDTH * old / (min(old, new) * _ROLLOFF)) / old)
        first = max(0, start // new - reach)
        last = -(-(start + length) // new) + reach
        audio = _read(file, first * old, min(last * old, file.frames))
    audio = resample(audio, old, new, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF)
    return audio[:, start - first * new :][:, :length]


def _open(path: str | Path) -> sf.SoundFile:
    if not Path(path).is_file():
        raise FileNotFoundError(f"There is no audio file {path}.")
    try:
        return sf.SoundFile(path)
    except sf.LibsndfileError as error:
        raise ValueError(f"{path} is not readable audio: {error}") from error


def _read(file: sf.SoundFile, start: int, stop: int) -> Tensor:
    """Frames start … stop at the file's own rate, as (1, stop − start)."""
    try:
        if file.format in _INEXACT_SEEK:
            for skipped in range(0, start, _BLOCK):
                file.read(min(_BLOCK, start - skipped), dtype="float32")
        else:
            file.seek(start)
        audio = file.read(stop - start, dtype="float32", always_2d=True)
    except sf.LibsndfileError as error:
        raise ValueError(
            f"{file.name} cannot be read from frame {start} on: {error.error_string or 'decoding failed'}"
        ) from error
    if len(audio) < stop - start:
        raise ValueError(f"{file.name} ends at frame {start + len(audio)} of {file.frames}: it is truncated.")
    return torch.from_numpy(audio.mean(axis=1)[None])
