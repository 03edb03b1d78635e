"""Pitch, periodicity and voicing: CREPE's, by the protocol of CARGAN (arXiv 2110.10139), and pYIN's pitch.

Published tables use CREPE's full model, which takes some 3 CPU seconds per second of audio. The ``…_tiny`` metrics use
its tiny model, some 17 times as fast: good to watch a training run by, not to be compared with published figures.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor
from torch.nn import functional as F

from univnet.metrics.base import Function, Measure, Remembered, at_rate, measure

Model = Literal["full", "tiny"]
_RATE = 16000  # CREPE's
_HOP = 256  # at the audio's own rate
_WINDOW = 1024
_BATCH = 1024  # frames; the Viterbi path is found within each batch
LOWEST, HIGHEST = 50.0, 550.0  # Hz


class Track(NamedTuple):
    """What CREPE hears: pitch in Hz and periodicity in [0, 1], each (1, frames)."""

    pitch: Tensor
    periodicity: Tensor


_tracks: Remembered[Track] = Remembered()


def track(audio: Tensor, sample_rate: int, model: Model = "full") -> Track:
    """Return pitch and periodicity of ``audio`` (samples,), a frame every 256 samples, as CARGAN takes them.

    torchcrepe adds random dither to the pitch. Here it is the same for every signal, so that it drops out of
    differences; numpy's global random numbers are left alone.
    """
    return _tracks.get(audio, (sample_rate, model), lambda: _track(audio, sample_rate, model))


def _track(audio: Tensor, sample_rate: int, model: Model) -> Track:
    import torchcrepe

    frames = len(audio) // _HOP
    hop = int(_HOP * (_RATE / sample_rate))
    padding = (_WINDOW - hop) // 2
    signal = F.pad(at_rate(audio, sample_rate, _RATE)[None, None], (padding, padding), mode="reflect")[0]
    with _fixed_dither():
        pitch, periodicity = torchcrepe.predict(
            signal,
            _RATE,
            hop,
            LOWEST,
            HIGHEST,
            model,
            return_periodicity=True,
            batch_size=_BATCH,
            device=str(signal.device),
            pad=False,
        )
    periodicity = torchcrepe.threshold.Silence()(periodicity, signal, _RATE, hop_length=hop, pad=False)
    if pitch.shape[1] != frames:  # the hop at 16 kHz is cut to an integer
        pitch = 2 ** F.interpolate(pitch.log2()[None], frames, mode="linear")[0]
        periodicity = F.interpolate(periodicity[None], frames, mode="linear")[0]
    return Track(pitch, periodicity)


def voiced(track: Track) -> Tensor:
    """Return which frames are voiced, (frames,), by torchcrepe's hysteresis."""
    import torchcrepe

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no voiced frame
        return ~torchcrepe.threshold.Hysteresis()(track.pitch, track.periodicity)[0].isnan()


def _pitch(fake: Track, real: Track) -> float:
    both = voiced(fake) & voiced(real)
    cents = 1200 * (fake.pitch[0, both].log2() - real.pitch[0, both].log2())
    return float(cents.square().mean().sqrt())


def _periodicity(fake: Track, real: Track) -> float:
    return float((fake.periodicity - real.periodicity).square().mean().sqrt())


def _vuv_f1(fake: Track, real: Track) -> float:
    fake_voiced, real_voiced = voiced(fake), voiced(real)
    wrong, right = (fake_voiced ^ real_voiced).sum(), (fake_voiced & real_voiced).sum()
    return float(2 * right / (2 * right + wrong))  # of precision and recall; NaN where nothing is voiced


def _of_tracks(compare: Callable[[Track, Track], float], model: Model) -> Function:
    def function(fake: Tensor, real: Tensor, sample_rate: int) -> float:
        if len(fake) * _RATE / sample_rate < _WINDOW:
            return float("nan")
        return compare(track(fake, sample_rate, model), track(real, sample_rate, model))

    return function


def _measures(model: Model) -> tuple[Measure, Measure, Measure]:
    suffix, what = ("", "CREPE's full model") if model == "full" else ("_tiny", "CREPE's tiny model")
    source = (
        f"protocol of CARGAN (arXiv 2110.10139, the package cargan) on {what}, by torchcrepe; at 16 kHz "
        "(one analysis for pitch, periodicity and voicing)"
    )
    tiny = " (tiny)" * (model == "tiny")
    return (
        Measure(
            name=f"pitch{suffix}",
            title=f"pitch RMSE{tiny}",
            unit="cents",
            better="lower",
            perfect=0.0,
            source=f"pitch where both are voiced: {source}",
            function=_of_tracks(_pitch, model),
            package="torchcrepe",
            digits=1,
        ),
        Measure(
            name=f"periodicity{suffix}",
            title=f"periodicity RMSE{tiny}",
            unit="",
            better="lower",
            perfect=0.0,
            source=source,
            function=_of_tracks(_periodicity, model),
            package="torchcrepe",
            digits=4,
        ),
        Measure(
            name=f"vuv_f1{suffix}",
            title=f"V/UV F1{tiny}",
            unit="0 to 1",
            better="higher",
            perfect=1.0,
            source=f"voiced frames: {source}",
            function=_of_tracks(_vuv_f1, model),
            package="torchcrepe",
            digits=4,
        ),
    )


pitch, periodicity, vuv_f1 = _measures("full")
pitch_tiny, periodicity_tiny, vuv_f1_tiny = _measures("tiny")

_pyin: Remembered[np.ndarray] = Remembered()


@measure(
    "f0",
    title="F0 RMSE (pYIN)",
    unit="cents",
    better="lower",
    perfect=0.0,
    source="pitch of the frames that pYIN (Mauch and Dixon 2014) takes for voiced in both, by librosa: 64 ms frames "
    "every 16 ms, 50 to 550 Hz; needs no further package; resampled to 16 kHz",
    digits=1,
)
def f0(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return the RMS difference of pYIN's pitch in cents; NaN where no frame is voiced in both."""
    fake, real = (at_rate(audio, sample_rate, _RATE) for audio in (fake, real))
    if len(fake) < _WINDOW:
        return float("nan")
    cents = 1200 * (np.log2(_pyin_track(fake)) - np.log2(_pyin_track(real)))
    both = np.isfinite(cents)
    return float(np.sqrt(np.square(cents[both]).mean())) if both.any() else float("nan")


def _pyin_track(audio: Tensor) -> np.ndarray:
    return _pyin.get(audio, None, lambda: _pyin_analysis(audio))


def _pyin_analysis(audio: Tensor) -> np.ndarray:
    import librosa

    return librosa.pyin(
        audio.cpu().numpy(), fmin=LOWEST, fmax=HIGHEST, sr=_RATE, frame_length=_WINDOW, hop_length=_HOP
    )[0]


@contextmanager
def _fixed_dither() -> Iterator[None]:
    """Give scipy, by which torchcrepe dithers, the same random numbers each time."""
    state = np.random.get_state()  # noqa: NPY002 - the generator that scipy uses
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
