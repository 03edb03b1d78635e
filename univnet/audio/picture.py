"""Pictures of mel-spectrograms, drawn without a display."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure


def mel_picture(real: np.ndarray, generated: np.ndarray, mel: Mapping[str, Any], title: str = "") -> Figure:
    """Draw two log-mel-spectrograms (n_mels, frames) and their difference, one above the other.

    Args:
        real: the recording's.
        generated: that of the vocoder's output; drawn on the recording's scale.
        mel: ``LogMelSpectrogram``'s arguments, for the time axis.
        title: the title of the figure.
    """
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    FigureCanvasAgg(figure)
    seconds = real.shape[1] * mel["hop_length"] / mel["sample_rate"]
    span = {"vmin": real.min(), "vmax": real.max(), "cmap": "magma"}
    rows = {
        "real": (real, span),
        "generated": (generated, span),
        "generated minus real": (generated - real, {"vmin": -3, "vmax": 3, "cmap": "RdBu_r"}),
    }
    for ax, (name, (values, how)) in zip(figure.subplots(3, 1, sharex=True), rows.items(), strict=True):
        image = ax.imshow(values, origin="lower", aspect="auto", extent=(0, seconds, 0, len(values)), **how)
        ax.set_ylabel("mel band")
        ax.set_title(name, loc="left", fontsize=10)
        figure.colorbar(image, ax=ax, label="natural log", pad=0.01)
    ax.set_xlabel("seconds")
    figure.suptitle(title)
    return figure


def histograms(values: Mapping[str, Sequence[float]], title: str = "") -> Figure:
    """Draw how often which values occur, one histogram for each name, side by side."""
    figure = Figure(figsize=(3.6 * len(values), 2.8), layout="constrained")
    FigureCanvasAgg(figure)
    for ax, (name, numbers) in zip(figure.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True):
        ax.hist(np.asarray(numbers, dtype=float), bins=50)
        ax.set_xlabel(name)
    figure.suptitle(title)
    return figure
