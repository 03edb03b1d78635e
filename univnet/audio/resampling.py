"""Resampling any part of a recording between any two rates, at a cost that does not depend on the rates' ratio."""

from collections.abc import Callable
from functools import lru_cache
from math import ceil, gcd

import numpy as np
import torch
from torch import Tensor
from torchaudio.transforms import Resample

_FILTER_WIDTH = 6  # zero crossings of the resampling filter, torchaudio's `lowpass_filter_width`
_ROLLOFF = 0.99
_LARGEST_KERNEL = 1 << 19  # elements; a ratio that needs a larger one is resampled sample by sample
_LARGEST_TABLE = 1 << 22  # elements of the weights kept for such a ratio
_AT_ONCE = 1 << 20  # products formed at a time
_PIECE = 1 << 20  # samples made at a time


def resampled_length(samples: int, from_rate: int, to_rate: int) -> int:
    """Number of samples that ``torchaudio.functional.resample`` makes of ``samples``: ceil(samples·to / from)."""
    return -(-samples * to_rate // from_rate)


class Resampling:
    """From one rate to another, part by part, with the values of ``torchaudio.functional.resample`` of the whole.

    torchaudio's filter for the rates' reduced ratio old : new has new · old weights, most of them zero: 13 thousand
    for 44,100 → 24,000 Hz, but a thousand million for 44,101 → 24,000 Hz. Where they are few, torchaudio does the
    work, with a filter that is kept. Where they are many, each sample is computed by itself from the few weights of
    its own that are not zero, by the same formula.

    Args:
        from_rate: Hz.
        to_rate: Hz.
    """

    def __init__(self, from_rate: int, to_rate: int) -> None:
        divisor = gcd(from_rate, to_rate)
        self.old, self.new = from_rate // divisor, to_rate // divisor
        self.width = ceil(_FILTER_WIDTH * self.old / (min(self.old, self.new) * _ROLLOFF))  # weights to each side
        self._few = self.new * (self.old + 2 * self.width) <= _LARGEST_KERNEL

    def needs(self, start: int, stop: int) -> tuple[int, int]:
        """The input samples from which samples start … stop are made; beyond the recording's ends they are zeros."""
        if self.old == self.new:
            return start, stop
        if self._few:  # whole blocks, `old` samples that become `new`, and as many around them as the filter reaches
            reach = ceil(self.width / self.old)
            return max(0, start // self.new - reach) * self.old, (-(-stop // self.new) + reach) * self.old
        first, last = start * self.old // self.new, (stop - 1) * self.old // self.new
        return max(0, first - self.width), last + self.width + 2

    def part(self, own: Callable[[int, int], np.ndarray], frames: int, start: int, length: int) -> Tensor:
        """Make samples start … start + length of a recording, about a million at a time.

        Args:
            own: gives the recording's own frames first … last.
            frames: their number.
            start: first sample to make.
            length: number of samples to make.

        Returns:
            (1, length)
        """
        pieces = [torch.zeros(1, 0)]
        for low in range(start, start + length, _PIECE):
            high = min(low + _PIECE, start + length)
            first, last = self.needs(low, high)
            given = torch.from_numpy(own(first, max(first, min(last, frames)))[None])
            pieces.append(self(given, first, low, high))
        return torch.cat(pieces, 1)

    def __call__(self, audio: Tensor, first: int, start: int, stop: int) -> Tensor:
        """Make samples start … stop.

        Args:
            audio: (1, samples), the input from sample ``first`` on, where ``first`` is what ``needs`` says.
            first: where it begins.
            start: first sample to make.
            stop: the sample after the last.

        Returns:
            (1, stop − start)
        """
        if self.old == self.new:
            return audio[:, start - first : stop - first]
        if self._few:
            return _kept(self.old, self.new)(audio)[:, start - first // self.old * self.new :][:, : stop - start]
        taps = 2 * self.width + 2
        begin = start * self.old // self.new - self.width
        end = (stop - 1) * self.old // self.new + self.width + 2
        samples = np.zeros(end - begin, np.float32)
        given = audio[0].numpy()[max(0, begin - first) : end - first]
        samples[max(0, first - begin) :][: len(given)] = given
        windows = np.lib.stride_tricks.sliding_window_view(samples, taps)
        made = np.empty(stop - start, np.float32)
        step = max(1, _AT_ONCE // taps)
        for low in range(0, len(made), step):
            places, phases = np.divmod(np.arange(start + low, min(start + low + step, stop)) * self.old, self.new)
            weights = _weights_of(self.old, self.new, self.width, phases)
            made[low : low + step] = np.einsum("ij,ij->i", windows[places - self.width - begin], weights)
        return torch.from_numpy(made[None])


@lru_cache(maxsize=16)
def _kept(old: int, new: int) -> Resample:
    # In the precision of `torchaudio.functional.resample`, of which it so gives the very values.
    return Resample(old, new, lowpass_filter_width=_FILTER_WIDTH, rolloff=_ROLLOFF, dtype=torch.float32)


def _weights_of(old: int, new: int, width: int, phases: np.ndarray) -> np.ndarray:
    """Weights (phases, taps) of the samples around places that lie ``phases`` / new behind a sample."""
    if new * (2 * width + 2) <= _LARGEST_TABLE:
        return _table(old, new, width)[phases]
    return _weights(old, new, width, phases)


@lru_cache(maxsize=4)
def _table(old: int, new: int, width: int) -> np.ndarray:
    return _weights(old, new, width, np.arange(new))


def _weights(old: int, new: int, width: int, phases: np.ndarray) -> np.ndarray:
    """A sinc under a squared cosine, as torchaudio defines it."""
    cutoff = min(old, new) * _ROLLOFF / old
    distance = cutoff * (np.arange(-width, width + 2) - phases[:, None] / new)
    window = np.cos(distance.clip(-_FILTER_WIDTH, _FILTER_WIDTH) * np.pi / _FILTER_WIDTH / 2) ** 2
    return (cutoff * window * np.sinc(distance)).astype(np.float32)
