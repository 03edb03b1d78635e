"""Objective speech metrics, one family per file: each a function ``(fake, real, sample_rate) -> float``.

``METRICS`` holds them all by name. A new one is a file here with a ``@measure(…)`` function, and its name in
``FAMILIES``: it can then be a column of ``univnet evaluate`` and a validation term (``UtteranceMean``,
``univnet.callbacks.ValidationMetrics``).
"""

from collections.abc import Iterable
from importlib import import_module

from univnet.metrics.base import Measure, MissingPackageError, measure
from univnet.metrics.utterance_mean import UtteranceMean

__all__ = ["FAMILIES", "METRICS", "TABLE", "Measure", "MissingPackageError", "UtteranceMean", "choose", "measure"]

FAMILIES = ("spectral", "perceptual", "intelligibility", "cepstral", "pitch")  # the modules that hold metrics

METRICS: dict[str, Measure] = {
    found.name: found
    for family in FAMILIES
    for found in vars(import_module(f"{__name__}.{family}")).values()
    if isinstance(found, Measure)
}

# What a table of vocoders has by default.
TABLE = (
    *("mstft", "pesq", "stoi", "estoi", "mcd", "pitch", "periodicity", "vuv_f1"),
    *("stft_loss", "mel_l1", "distillmos"),
)


def choose(names: Iterable[str]) -> list[Measure]:
    """Return the metrics of these names.

    Raises:
        ValueError: naming every name that is none, and the names there are.
    """
    names = list(names)
    if unknown := [name for name in names if name not in METRICS]:
        raise ValueError(f"there is no metric {', '.join(map(repr, unknown))}; there are {', '.join(METRICS)}")
    return [METRICS[name] for name in names]
