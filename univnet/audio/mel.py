"""The only mel-spectrogram of the package: training, validation, losses and synthesis all use it."""

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchaudio.functional import melscale_fbanks

from univnet.common.mistakes import Mistakes
from univnet.common.padding import pad_ends
from univnet.common.precision import full_precision
from univnet.common.tensors import require_tensor


class LogMelSpectrogram(nn.Module):
    """Log-mel-spectrogram as in HiFi-GAN and UnivNet: exactly ``samples // hop_length`` frames.

    The audio is padded by reflection, with (n_fft − hop) // 2 samples on the left and the rest of n_fft − hop on the
    right, and cut into frames without further padding. Then: Hann window (periodic), magnitude
    sqrt(re² + im² + 1e-9), Slaney's mel filters with Slaney's area normalization, and the natural logarithm of the
    values clamped to ``floor``. Sources: jik876/hifi-gan and mindslab-ai/univnet; the filters are those of
    ``librosa.filters.mel``.

    Differentiable and batched; runs on the input's device, wherever the module is. Computes in float32 even under
    autocast and with ``torch.set_float32_matmul_precision``, and in float64 for float64 input.

    Args:
        sample_rate: in Hz.
        n_fft: FFT size, in samples; even, because torchaudio's filters assume it.
        hop_length: samples from one frame to the next, at most ``n_fft``.
        win_length: window size in samples, at most ``n_fft``; default: ``n_fft``.
        n_mels: number of mel bands.
        f_min: lower edge of the lowest band, in Hz.
        f_max: upper edge of the highest band, in Hz; default: half the sample rate.
        floor: smallest mel magnitude; log(floor) means silence.

    Raises:
        ValueError: if arguments are out of range; it names all of them.
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
        self._check()
        filters = melscale_fbanks(
            n_fft // 2 + 1, self.f_min, self.f_max, n_mels, sample_rate, norm="slaney", mel_scale="slaney"
        )
        self.filters: Tensor
        self.register_buffer("filters", filters.T.contiguous(), persistent=False)  # (n_mels, n_fft // 2 + 1)
        self._elsewhere: dict[torch.device, Tensor] = {}  # copies of them on other devices

    def _check(self) -> None:
        mistakes = Mistakes(self)
        mistakes.unless(self.sample_rate > 0, f"sample_rate must be positive, got {self.sample_rate}")
        mistakes.unless(self.n_fft > 0 and self.n_fft % 2 == 0, f"n_fft must be positive and even, got {self.n_fft}")
        for name in ("hop_length", "win_length"):
            value = getattr(self, name)
            mistakes.unless(0 < value <= self.n_fft, f"{name} must be between 1 and n_fft, got {value}")
        mistakes.unless(self.n_mels > 0, f"n_mels must be positive, got {self.n_mels}")
        mistakes.unless(
            0 <= self.f_min < self.f_max <= self.sample_rate / 2,
            f"f_min and f_max must satisfy 0 ≤ f_min < f_max ≤ sample_rate / 2, got {self.f_min} and {self.f_max}",
        )
        mistakes.unless(self.floor > 0, f"floor must be positive, got {self.floor}")
        mistakes.raise_all()

    @property
    def context(self) -> tuple[int, int]:
        """Samples (left, right) beyond both ends of a piece of audio that its frames need."""
        left = (self.n_fft - self.hop_length) // 2
        return left, self.n_fft - self.hop_length - left

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain numbers, from which it is rebuilt."""
        names = ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "f_min", "f_max", "floor")
        return {name: getattr(self, name) for name in names}

    def forward(self, audio: Tensor) -> Tensor:
        """Return the log-mel-spectrogram of whole utterances.

        Args:
            audio: (batch, 1, samples), at least one hop long. Audio too short for reflection is first padded with
                zeros.

        Returns:
            (batch, n_mels, samples // hop_length).

        Raises:
            TypeError: if the audio is no tensor.
            ValueError: if the audio has another shape or is shorter than one hop.
        """
        samples = self._samples(audio)
        if samples < self.hop_length:
            raise ValueError(f"the audio has {samples} samples, but a mel frame needs {self.hop_length}: pad it")
        audio = F.pad(audio, (0, max(0, max(self.context) + 1 - samples)))
        mel = self.frames_of(pad_ends(audio, *self.context))
        return mel[..., : samples // self.hop_length]

    def frames_of(self, audio: Tensor) -> Tensor:
        """Return the log-mel-spectrogram of audio that already includes its context: nothing is padded.

        Args:
            audio: (batch, 1, left + samples + right) with (left, right) = ``context``.

        Returns:
            (batch, n_mels, samples // hop_length), the same frames that ``forward`` returns for the whole utterance.

        Raises:
            TypeError: if the audio is no tensor.
            ValueError: if the audio has another shape or is shorter than ``n_fft``.
        """
        if (samples := self._samples(audio)) < self.n_fft:
            raise ValueError(f"the audio has {samples} samples with its context, but a frame needs {self.n_fft}")
        with torch.autocast(audio.device.type, enabled=False), full_precision(audio.device):
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
            return (self._filters_on(audio.device).to(audio.dtype) @ magnitude).clamp(min=self.floor).log()

    def _filters_on(self, device: torch.device) -> Tensor:
        """Return the filters there. The module stays where it is: others may share it."""
        if device == self.filters.device:
            return self.filters
        if device not in self._elsewhere:
            with torch.inference_mode(False):  # else training could not use the copy later
                self._elsewhere[device] = self.filters.to(device)
        return self._elsewhere[device]

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self._elsewhere, before = {}, self.filters
        super()._apply(fn, recurse)
        if self.filters.itemsize < torch.float32.itemsize:  # mels are float32 even where a model is not
            self.filters = before.to(self.filters.device)
        return self

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_elsewhere": {}}

    @staticmethod
    def _samples(audio: Tensor) -> int:
        require_tensor(audio, "the audio")
        if audio.ndim != 3 or audio.shape[1] != 1:
            raise ValueError(f"expected audio of shape (batch, 1, samples), got {tuple(audio.shape)}")
        return audio.shape[-1]

    def extra_repr(self) -> str:
        """Return the arguments, for ``print``."""
        return ", ".join(f"{name}={value}" for name, value in self.config.items())
