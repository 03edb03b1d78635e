"""The only mel spectrogram of the package: training, validation, losses and synthesis all use this one."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks


class LogMelSpectrogram(nn.Module):
    """Log-mel spectrogram as HiFi-GAN and UnivNet define it: exactly `samples // hop_length` frames.

    The audio is extended by reflection, (n_fft − hop) // 2 samples on the left and the rest of n_fft − hop on
    the right, and cut into frames that are not centred any further. Then: Hann window (periodic), magnitude
    sqrt(re² + im² + 1e-9), Slaney's mel filters with Slaney's area normalisation, natural logarithm of the
    value clamped to `floor`. Source: jik876/hifi-gan and mindslab-ai/univnet; the filters are those of
    `librosa.filters.mel`.

    Differentiable and batched; runs on the input's device after `.to(device)`. Computes in float32 even under
    autocast, and in float64 for float64 input.

    Args:
        sample_rate: Hz.
        n_fft: FFT size, in samples; even, because torchaudio's filters take it for even.
        hop_length: samples from one frame to the next, at most `n_fft`.
        win_length: window size in samples, at most `n_fft`; default: `n_fft`.
        n_mels: number of mel bands.
        f_min: lowest band's lower edge, Hz.
        f_max: highest band's upper edge, Hz; default: half the sample rate.
        floor: smallest mel magnitude; log(floor) stands for silence.

    Raises:
        ValueError: names every argument that does not fit.
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        n_fft: int = 1024,
        hop_length: int = 256,
        win_length: int | None = None,
        n_mels: int = 100,
        f_min: float = 0.0,
        f_max: float | None = None,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        self.sample_rate = sample_rate
        self.n_fft = n_fft
        self.hop_length = hop_length
        self.win_length = n_fft if win_length is None else win_length
        self.n_mels = n_mels
        self.f_min = float(f_min)
        self.f_max = sample_rate / 2 if f_max is None else float(f_max)
        self.floor = float(floor)
        self._validate()
        filters = melscale_fbanks(
            n_fft // 2 + 1, self.f_min, self.f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.filters: Tensor
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)  # (n_mels, n_fft // 2 + 1)

    def _validate(self) -> None:
        rules = {
            f"sample_rate must be positive, got {self.sample_rate}": self.sample_rate > 0,
            f"n_fft must be positive and even, got {self.n_fft}": self.n_fft > 0 and self.n_fft % 2 == 0,
            f"hop_length must lie in 1…n_fft, got {self.hop_length}": 0 < self.hop_length <= self.n_fft,
            f"win_length must lie in 1…n_fft, got {self.win_length}": 0 < self.win_length <= self.n_fft,
            f"n_mels must be positive, got {self.n_mels}": self.n_mels > 0,
            f"f_min and f_max must satisfy 0 ≤ f_min < f_max ≤ sample_rate / 2, got {self.f_min} and {self.f_max}": (
                0 <= self.f_min < self.f_max <= self.sample_rate / 2
            ),
            f"floor must be positive, got {self.floor}": self.floor > 0,
        }
        if mistakes := [rule for rule, kept in rules.items() if not kept]:
            raise ValueError("LogMelSpectrogram: " + "; ".join(mistakes) + ".")

    @property
    def context(self) -> tuple[int, int]:
        """Samples (left, right) that the frames of a piece of audio need beyond its own two ends."""
        left = (self.n_fft - self.hop_length) // 2
        return left, self.n_fft - self.hop_length - left

    @property
    def config(self) -> dict[str, Any]:
        """The arguments that rebuild this module, as plain numbers."""
        names = ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "f_min", "f_max", "floor")
        return {name: getattr(self, name) for name in names}

    def forward(self, audio: Tensor) -> Tensor:
        """Log-mel of whole utterances.

        Args:
            audio: (batch, 1, samples), at least one hop long. Audio too short to be reflected is extended with
                zeros first.

        Returns:
            (batch, n_mels, samples // hop_length)

        Raises:
            ValueError: for another shape, or audio shorter than one hop.
        """
        samples = self._samples(audio)
        if samples < self.hop_length:
            raise ValueError(f"The audio has {samples} samples, but a mel frame needs {self.hop_length}: pad it.")
        audio = F.pad(audio, (0, max(0, max(self.context) + 1 - samples)))
        mel = self.frames_of(F.pad(audio, self.context, mode="reflect"))
        return mel[..., : samples // self.hop_length]

    def frames_of(self, audio: Tensor) -> Tensor:
        """Log-mel of audio that already carries its neighbourhood: nothing is padded.

        Args:
            audio: (batch, 1, left + samples + right) with (left, right) = `context`.

        Returns:
            (batch, n_mels, samples // hop_length), the very frames that `forward` gives for the whole utterance.

        Raises:
            ValueError: for another shape, or audio shorter than `n_fft`.
        """
        if (samples := self._samples(audio)) < self.n_fft:
            raise ValueError(f"The audio has {samples} samples with its context, but a frame needs {self.n_fft}.")
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio.to(torch.promote_types(audio.dtype, torch.float32)).squeeze(1)
            spectrum = torch.stft(
                audio,
                self.n_fft,
                self.hop_length,
                self.win_length,
                torch.hann_window(self.win_length, dtype=audio.dtype, device=audio.device),
                center=False,
                return_complex=True,
            )
            magnitude = (spectrum.real.square() + spectrum.imag.square() + 1e-9).sqrt()
            return (self.filters.to(audio.dtype) @ magnitude).clamp(min=self.floor).log()

    @staticmethod
    def _samples(audio: Tensor) -> int:
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise ValueError(f"Audio must have the shape (batch, 1, samples), got {tuple(audio.shape)}.")
        return audio.shape[-1]

    def extra_repr(self) -> str:
        """The configuration, for `print`."""
        return ", ".join(f"{name}={value}" for name, value in self.config.items())
