"""Pictures for the page: spectrograms as small images, histograms as SVG."""

import io
import math
from collections.abc import Mapping, Sequence
from html import escape

import numpy as np

_RANGE = 80.0  # dB below the loudest that are told apart
_WIDEST = 480  # pixels
_ROWS = 128
_BINS = 20
_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 300, 130, 8, 22


def spectrogram(audio: np.ndarray, sample_rate: int, loudest: float | None = None) -> tuple[bytes, float]:
    """Draw a log-magnitude spectrogram from 0 Hz (bottom) to half the sample rate (top).

    Args:
        audio: (samples,).
        sample_rate: in Hz.
        loudest: the magnitude in dB that is drawn brightest; default: the audio's own.

    Returns:
        A WebP image without axes, and ``loudest``, to draw other audio on the same scale.
    """
    import librosa
    from matplotlib.image import imsave

    hop = max(128, -(-len(audio) // _WIDEST))
    n_fft = 1024 if sample_rate <= 24000 else 2048
    magnitude = np.abs(librosa.stft(np.pad(audio, (0, max(0, n_fft - len(audio)))), n_fft=n_fft, hop_length=hop))
    rows = magnitude[: n_fft // 2].reshape(_ROWS, -1, magnitude.shape[1]).max(axis=1)
    decibels = 20 * np.log10(rows + 1e-7)
    loudest = float(decibels.max()) if loudest is None else loudest
    image = io.BytesIO()
    imsave(
        image, decibels, vmin=loudest - _RANGE, vmax=loudest, cmap="magma", origin="lower", format="webp",
        pil_kwargs={"quality": 70},
    )  # fmt: skip
    return image.getvalue(), loudest


def histogram(values: Mapping[str, Sequence[float]], colors: Mapping[str, str], digits: int, label: str) -> str:
    """Draw the distributions of a metric, an outline per contestant, as an SVG element; empty where there are none.

    Args:
        values: of every contestant; those that are not finite are left out.
        colors: of the contestants.
        digits: decimals at the axis.
        label: what the picture shows, for those who cannot see it.
    """
    finite = {name: [each for each in numbers if math.isfinite(each)] for name, numbers in values.items()}
    every = [each for numbers in finite.values() for each in numbers]
    if not every:
        return ""
    low, high = min(every), max(every)
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = {name: np.histogram(numbers, _BINS, (low, high))[0] for name, numbers in finite.items() if numbers}
    most, width = max(max(each) for each in counts.values()), (_WIDTH - 2 * _LEFT) / _BINS
    plot = _HEIGHT - _BOTTOM - 6
    parts = [f'<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{escape(label)}">']
    parts.append(f'<path class="axis" d="M{_LEFT} {_HEIGHT - _BOTTOM}H{_WIDTH - _LEFT}"/>')
    for name, each in counts.items():
        path = f"M{_LEFT} {_HEIGHT - _BOTTOM}"
        for place, count in enumerate(each):
            top = _HEIGHT - _BOTTOM - plot * count / most
            path += f"V{top:.1f}H{_LEFT + (place + 1) * width:.1f}"
        path += f"V{_HEIGHT - _BOTTOM}"
        parts.append(
            f'<path d="{path}" fill="{colors[name]}" stroke="{colors[name]}"><title>{escape(name)}</title></path>'
        )
    for share, anchor in ((0.0, "start"), (0.5, "middle"), (1.0, "end")):
        x = _LEFT + share * (_WIDTH - 2 * _LEFT)
        value = low + share * (high - low)
        parts.append(f'<text x="{x:.0f}" y="{_HEIGHT - 6}" text-anchor="{anchor}">{value:.{digits}f}</text>')
    return "".join([*parts, "</svg>"])
