"""Distance of mel-cepstra."""

import logging

from torch import Tensor

from univnet.metrics.base import measure

_MILLISECONDS, _HOP = 32, 8  # the package's own frames


@measure(
    "mcd",
    title="MCD",
    unit="as mel-cepstral-distance scales it",
    better="lower",
    perfect=0.0,
    source="mel-cepstral distance (Kubichek 1993), by the package mel-cepstral-distance with its defaults (20 bands, "
    "coefficients 1 to 15, 32 ms frames every 8 ms, peak normalised), but frame by frame: a vocoder's output is "
    "aligned with its recording, so there is no time warping; at the audio's own rate",
    package="mel_cepstral_distance",
)
def mcd(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return the mean distance of the mel-cepstra of corresponding frames; NaN for silence or less than a frame."""
    from mel_cepstral_distance.api import compare_amplitude_spectrograms
    from mel_cepstral_distance.computation import get_X_km
    from mel_cepstral_distance.helper import ms_to_samples, norm_audio_signal

    frame, hop = ms_to_samples(_MILLISECONDS, sample_rate), ms_to_samples(_HOP, sample_rate)
    if len(fake) <= frame or not fake.any() or not real.any():
        return float("nan")
    logging.getLogger("mel_cepstral_distance.api").setLevel(logging.ERROR)  # frames that are no power of two are slow
    signals = (norm_audio_signal(audio.double().cpu().numpy()) for audio in (real, fake))
    real_spectrum, fake_spectrum = (get_X_km(signal, frame, frame, hop, "hanning") for signal in signals)
    distance, _ = compare_amplitude_spectrograms(
        real_spectrum, fake_spectrum, sample_rate, _MILLISECONDS, aligning="pad"
    )
    return float(distance)
