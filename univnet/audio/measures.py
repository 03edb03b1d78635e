"""What is measured of a recording when a corpus is prepared: its loudness, and up to which frequency it sounds."""

import torch
from torch import Tensor
from torchaudio.functional import loudness as bs1770

_SHORTEST = 0.4  # seconds: one block of the loudness measure
_WINDOW = 1024
_AT_ONCE = 1 << 14  # windows transformed at a time
_BELOW = -55.0  # dB below the loudest band: what is weaker is the noise of rounding, or a filter's leakage
_BAND = 250.0  # Hz, over which the spectrum is smoothed


def loudness(audio: Tensor, sample_rate: int) -> float | None:
    """Integrated loudness in LUFS (ITU-R BS.1770-4); None for less than 0.4 s, or when nothing passes its gate.

    Args:
        audio: (1, samples)
        sample_rate: Hz.
    """
    if audio.shape[-1] < _SHORTEST * sample_rate:
        return None
    value = float(bs1770(audio, sample_rate))
    return value if value > -70 else None  # its absolute gate; false for NaN, too


def bandwidth(audio: Tensor, sample_rate: int) -> float:
    """Highest frequency in Hz at which the loudest moments of a recording have sound.

    That is: the upper edge of the highest band of 250 Hz whose largest power over all windows (Hann, 1024 samples) lies
    no more than 55 dB below that of the strongest band. Sound that was upsampled, or coded by a lossy codec at a low
    rate, ends far below half the sample rate; recorded speech does not, because of its fricatives.

    Args:
        audio: (1, samples)
        sample_rate: Hz.
    """
    padded = torch.nn.functional.pad(audio[0], (0, max(0, _WINDOW - audio.shape[-1])))
    frames, window = padded.unfold(0, _WINDOW, _WINDOW // 2), torch.hann_window(_WINDOW)
    power = torch.zeros(_WINDOW // 2 + 1)
    for some in frames.split(_AT_ONCE):
        power = torch.maximum(power, torch.fft.rfft(some * window).abs().square().amax(0))
    width = max(1, round(_BAND / (sample_rate / _WINDOW)))
    bands = torch.nn.functional.avg_pool1d(power[None], width, ceil_mode=True, count_include_pad=False)[0]
    sounding = (10 * (bands.clamp(min=1e-20) / bands.max().clamp(min=1e-20)).log10() >= _BELOW).nonzero()
    edge = (int(sounding.max()) + 1) * width * sample_rate / _WINDOW
    return min(edge, sample_rate / 2)
