"""How good it sounds: PESQ against the recording, and a neural network's opinion of the audio alone."""

from contextlib import redirect_stdout
from functools import lru_cache
from io import StringIO
from typing import Any

from torch import Tensor

from univnet.metrics.base import Remembered, at_rate, measure

_RATE = 16000
_opinions: Remembered[float] = Remembered()


@measure(
    "pesq",
    title="PESQ-WB",
    unit="MOS-LQO, 1.0 to 4.64",
    better="higher",
    perfect=4.643888473510742,
    source="ITU-T P.862.2, wide band, by the package pesq on 16-bit integers; resampled to 16 kHz",
    package="pesq",
    install="univnet[pesq]",
)
def pesq(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return wide-band PESQ; NaN where it finds no speech, or less than a quarter of a second."""
    import pesq as package

    fake, real = ((at_rate(x, sample_rate, _RATE).clamp(-1, 1) * 32767).round().short() for x in (fake, real))
    if not fake.any() or not real.any():
        return float("nan")
    try:
        return float(package.pesq(_RATE, real.cpu().numpy(), fake.cpu().numpy(), "wb"))
    except (package.NoUtterancesError, package.BufferTooShortError):
        return float("nan")


@measure(
    "distillmos",
    title="DistillMOS",
    unit="predicted MOS, 1 to 5",
    better="higher",
    perfect=None,
    source="Stahl and Gamper 2025 (arXiv 2502.05356), by the package distillmos, which holds the weights; looks at the "
    "generated audio alone; resampled to 16 kHz",
    package="distillmos",
)
def distillmos(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return the mean opinion score that DistillMOS predicts for the generated audio; NaN for silence."""
    if not fake.any():
        return float("nan")
    audio = at_rate(fake, sample_rate, _RATE)
    return _opinions.get(audio, None, lambda: float(_listener(str(audio.device))(audio[None])))


@lru_cache
def _listener(device: str) -> Any:
    from distillmos import ConvTransformerSQAModel

    with redirect_stdout(StringIO()):  # it prints where its weights are
        return ConvTransformerSQAModel().eval().to(device)
