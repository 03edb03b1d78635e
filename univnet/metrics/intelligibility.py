"""How well it is understood: short-time objective intelligibility."""

import warnings

from torch import Tensor

from univnet.metrics.base import measure

_TOO_SHORT = "Not enough STFT frames"  # pystoi then returns 1e-5


@measure(
    "stoi",
    title="STOI",
    unit="0 to 1",
    better="higher",
    perfect=1.0,
    source="Taal et al. 2011, by the package pystoi; it resamples to 10 kHz",
    package="pystoi",
    digits=4,
)
def stoi(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return STOI; NaN where less than some 0.4 s are not silent."""
    return _stoi(fake, real, sample_rate, extended=False)


@measure(
    "estoi",
    title="ESTOI",
    unit="0 to 1",
    better="higher",
    perfect=1.0,
    source="Jensen and Taal 2016, by the package pystoi; it resamples to 10 kHz",
    package="pystoi",
    digits=4,
)
def estoi(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return extended STOI; NaN where less than some 0.4 s are not silent."""
    return _stoi(fake, real, sample_rate, extended=True)


def _stoi(fake: Tensor, real: Tensor, sample_rate: int, extended: bool) -> float:
    import pystoi

    if not real.any() or not fake.any():
        return float("nan")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=_TOO_SHORT)
        try:
            return float(pystoi.stoi(real.cpu().numpy(), fake.cpu().numpy(), sample_rate, extended))
        except (RuntimeWarning, ValueError):  # the latter for audio shorter than a single frame
            return float("nan")
