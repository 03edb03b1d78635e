"""Distances of spectrograms: M-STFT as published tables have it, this package's own loss, and log-mel L1."""

from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from univnet.audio import LogMelSpectrogram
from univnet.losses import MultiResolutionSTFTLoss
from univnet.metrics.base import measure

_LEAST = 1025  # samples: the largest FFT's half is reflected at both ends


@measure(
    "mstft",
    title="M-STFT",
    unit="",
    better="lower",
    perfect=0.0,
    source="multi-resolution STFT distance of auraloss with its defaults (arXiv 1910.11480 §2.2; the column of "
    "BigVGAN's and Vocos' tables); at the audio's own rate",
    package="auraloss",
    digits=4,
)
def mstft(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return auraloss' ``MultiResolutionSTFTLoss()`` on the whole utterance."""
    if len(fake) < _LEAST:
        return float("nan")
    return float(_auraloss()(fake[None, None], real[None, None]))


@measure(
    "stft_loss",
    title="val/stft",
    unit="",
    better="lower",
    perfect=0.0,
    source="this package's reconstruction loss: spectral convergence plus log-magnitude L1 (arXiv 2106.07889 §2.3), "
    "as training validates by; at the audio's own rate",
)
def stft_loss(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return the sum of the terms of ``univnet.losses.MultiResolutionSTFTLoss()`` on the whole utterance."""
    if len(fake) < _LEAST:
        return float("nan")
    terms = MultiResolutionSTFTLoss()(fake[None, None], real[None, None])
    return float(torch.stack(list(terms.values())).sum())


@measure(
    "mel_l1",
    title="log-mel L1",
    unit="natural log",
    better="lower",
    perfect=0.0,
    source="mean absolute difference of log-mel-spectrograms (univnet.LogMelSpectrogram: 100 bands up to half the "
    "sample rate, FFT 1024, hop 256); at the audio's own rate",
)
def mel_l1(fake: Tensor, real: Tensor, sample_rate: int) -> float:
    """Return the mean absolute difference of the two log-mel-spectrograms."""
    spectrogram = _mel(sample_rate).to(fake.device)
    if len(fake) < spectrogram.hop_length:
        return float("nan")
    return float((spectrogram(fake[None, None]) - spectrogram(real[None, None])).abs().mean())


@lru_cache
def _auraloss() -> Any:
    from auraloss.freq import MultiResolutionSTFTLoss

    return MultiResolutionSTFTLoss()


@lru_cache
def _mel(sample_rate: int) -> LogMelSpectrogram:
    return LogMelSpectrogram(sample_rate)
