"""The losses of UnivNet's two players: distances of spectrograms, and adversarial losses over sub-discriminators."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from univnet.audio import LogMelSpectrogram
from univnet.common.mistakes import Mistakes
from univnet.common.padding import pad_ends

_MAGNITUDE_FLOOR = 1e-7**0.5


class MultiResolutionSTFTLoss(nn.Module):
    """Distance of magnitude spectrograms (Parallel WaveGAN, arXiv 1910.11480, §2.2; UnivNet, 2106.07889, §2.3).

    The loss is the sum of two terms, each the mean over the resolutions: spectral convergence (the Frobenius norm of
    the magnitudes' difference, divided by that of the real magnitudes) and the mean absolute difference of the log
    magnitudes. Hann window, centred frames, reflect padding, magnitudes of at least √1e-7. Single precision or above.

    Args:
        resolutions: (FFT size, hop, window length) in samples.
        per_example: compute spectral convergence for each example, and take the mean. The reference computes one
            ratio of norms over the whole batch, which is not a mean over examples: gradients accumulated over
            micro-batches then differ from the whole batch's. Per example they are equal, but a quiet example counts
            as much as a loud one.
        silence_rms: only used with ``per_example``, because the ratio of a silent example has no bound: an example with
            less spectral energy than white noise of this RMS (0.01 is −40 dBFS) is divided by that noise's norm.

    Raises:
        ValueError: if arguments are out of range (it names all of them); in ``forward``, if the shapes
            differ or the audio is too short.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        per_example: bool = False,
        silence_rms: float = 0.01,
    ) -> None:
        super().__init__()
        mistakes = Mistakes(self)
        for resolution in resolutions:
            mistakes.unless(
                len(resolution) == 3 and min(resolution) >= 1 and resolution[2] <= resolution[0],
                f"resolution {tuple(resolution)} must be (FFT size, hop, window length), the window no longer than the "
                "FFT",
            )
        mistakes.unless(len(resolutions) > 0, "at least one resolution is needed")
        mistakes.unless(silence_rms > 0, f"silence_rms must be positive, got {silence_rms}")
        mistakes.raise_all()
        self.resolutions = tuple(tuple(resolution) for resolution in resolutions)
        self.per_example, self.silence_rms = per_example, silence_rms

    def forward(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Compare generated with real audio, both (batch, 1, samples).

        Returns:
            ``{"spectral_convergence": scalar, "log_magnitude": scalar}``.
        """
        _require_same_shape(fake, real)
        least = max(resolution[0] for resolution in self.resolutions) // 2 + 1
        if fake.shape[2] < least:
            raise ValueError(f"audio of {fake.shape[2]} samples is too short: at least {least} are needed")
        convergence, log_magnitude = [], []
        with torch.autocast(fake.device.type, enabled=False):
            fake, real = _at_least_single(fake).squeeze(1), _at_least_single(real).squeeze(1)
            for n_fft, hop, length in self.resolutions:
                # Not kept: a buffer would be rounded in half-precision modules, and a cache filled in inference mode
                # could not be used in training.
                window = torch.hann_window(length, dtype=fake.dtype, device=fake.device)
                fake_magnitude = _magnitude(fake, n_fft, hop, window)
                real_magnitude = _magnitude(real, n_fft, hop, window)
                convergence.append(self._convergence(fake_magnitude, real_magnitude, window))
                log_magnitude.append((fake_magnitude.log() - real_magnitude.log()).abs().mean())
            return {
                "spectral_convergence": torch.stack(convergence).mean(),
                "log_magnitude": torch.stack(log_magnitude).mean(),
            }

    def _convergence(self, fake: Tensor, real: Tensor, window: Tensor) -> Tensor:
        if not self.per_example:
            return torch.linalg.vector_norm(fake - real) / torch.linalg.vector_norm(real)
        # White noise has power rms² · Σ window² in every bin of every frame.
        silence = self.silence_rms * (window.square().sum() * real[0].numel()).sqrt()
        distance = torch.linalg.vector_norm(fake - real, dim=(1, 2))
        return (distance / torch.linalg.vector_norm(real, dim=(1, 2)).maximum(silence)).mean()


class MultiScaleMelLoss(nn.Module):
    """L1 distance of log-mel-spectrograms, summed over resolutions (DAC, arXiv 2306.06546, §3.5; also BigVGAN-v2).

    The mels are those of ``LogMelSpectrogram`` (magnitudes, Slaney's filters, clamped at 1e-5), but with logarithms to
    base 10 and windows as long as the FFT; each resolution's distance is the mean over bands and frames. DAC and
    BigVGAN-v2 use a weight of 15. The mel loss of HiFi-GAN (arXiv 2010.05646, §2.4) and Vocos (arXiv 2306.00814) has
    one resolution, that of the input mel, and natural logarithms: their weight 45 is 45 · ln 10 ≈ 104 here.

    Args:
        sample_rate: in Hz. At 48 kHz one band of each of the two shortest resolutions is narrower than a bin, and
            empty.
        resolutions: (FFT size, hop, mel bands), the first two in samples.

    Raises:
        ValueError: if arguments are out of range (it names all of them); in ``forward``, if the shapes
            differ.
    """

    def __init__(
        self,
        sample_rate: int = 24000,
        resolutions: Sequence[tuple[int, int, int]] = (
            *((32, 8, 5), (64, 16, 10), (128, 32, 20), (256, 64, 40)),
            *((512, 128, 80), (1024, 256, 160), (2048, 512, 320)),
        ),
    ) -> None:
        super().__init__()
        mistakes = Mistakes(self)
        mistakes.unless(len(resolutions) > 0, "at least one resolution is needed")
        mels = []
        for resolution in resolutions:
            try:
                n_fft, hop, bands = resolution
                mels.append(LogMelSpectrogram(sample_rate, n_fft, hop, n_mels=bands))
            except ValueError as error:
                mistakes.add([f"resolution {tuple(resolution)} must be (FFT size, hop, mel bands): {error}"])
        mistakes.raise_all()
        self.sample_rate, self.mels = sample_rate, nn.ModuleList(mels)

    def forward(self, fake: Tensor, real: Tensor) -> Tensor:
        """Compare generated with real audio, both (batch, 1, samples); return a scalar."""
        _require_same_shape(fake, real)
        distances = [(mel(fake) - mel(real)).abs().mean() for mel in self.mels]
        return torch.stack(distances).sum() / math.log(10)


class Judged(NamedTuple):
    """The output of one sub-discriminator for a batch of audio."""

    scores: Tensor  # any shape
    features: Sequence[Tensor] = ()  # the outputs of its layers, if the loss needs them


class AdversarialLoss(ABC):
    """Both players' losses over one sub-discriminator, one method per player; ``mean_over_parts`` combines them.

    Each method returns a dict of scalars: ``"loss"``, and others for logging, without gradient. If ``"loss"`` contains
    more than the adversarial loss, ``"adversarial"`` is that loss alone.

    Attributes:
        sees_real: whether the generator's loss also depends on the scores of the real audio.
        sees_features: whether a loss depends on features: sub-discriminators then run ``with_features=True``.
        collapse: when the discriminator has won, as arguments of ``univnet.gan.Collapse``; ``None``: never known.
    """

    sees_real: bool = False
    sees_features: bool = False
    collapse: Mapping[str, float | None] | None = None

    @abstractmethod
    def generator(self, fake: Judged, real: Judged | None = None) -> dict[str, Tensor]:
        """Return the generator's loss; ``fake`` has gradient; ``real`` has none, and is given if ``sees_real``."""

    @abstractmethod
    def discriminator(self, real: Judged, fake: Judged) -> dict[str, Tensor]:
        """Return the discriminator's loss; it gives the generator no gradient."""

    def judge(self, part: nn.Module, audio: Tensor) -> Judged:
        """Run a sub-discriminator on audio (batch, 1, samples)."""
        return Judged(*part(audio, with_features=True)) if self.sees_features else Judged(part(audio))


class LeastSquares(AdversarialLoss):
    """Least squares (UnivNet, arXiv 2106.07889, §2.3; HiFi-GAN, BigVGAN, DAC): real scores to 1, fake ones to 0."""

    collapse: Mapping[str, float | None] | None = {"loss": 0.05, "separation": 0.95}

    def generator(self, fake: Judged, real: Judged | None = None) -> dict[str, Tensor]:
        """Return ``{"loss": mean((1 − fake)²)}``."""
        return {"loss": (1 - _at_least_single(fake.scores)).square().mean()}

    def discriminator(self, real: Judged, fake: Judged) -> dict[str, Tensor]:
        """Return ``"loss"``, mean((1 − real)²) + mean(fake²), and the mean ``"real_score"`` and ``"fake_score"``."""
        of_real, of_fake = _at_least_single(real.scores), _at_least_single(fake.scores)
        loss = (1 - of_real).square().mean() + of_fake.square().mean()
        return {"loss": loss, "real_score": of_real.detach().mean(), "fake_score": of_fake.detach().mean()}


class Hinge(AdversarialLoss):
    """Hinge (SoundStream, arXiv 2107.03312; Vocos, arXiv 2306.00814): real scores above 1, fake ones below −1.

    The generator's loss pushes fake scores up to 1 and no further, as in both papers. (MelGAN's, −fake, has no bound.)
    """

    collapse: Mapping[str, float | None] | None = {"loss": 0.05, "separation": None}

    def generator(self, fake: Judged, real: Judged | None = None) -> dict[str, Tensor]:
        """Return ``{"loss": mean(max(0, 1 − fake))}``."""
        return {"loss": (1 - _at_least_single(fake.scores)).relu().mean()}

    def discriminator(self, real: Judged, fake: Judged) -> dict[str, Tensor]:
        """Return ``"loss"``, mean(max(0, 1 − real)) + mean(max(0, 1 + fake)), and the two mean scores, too."""
        of_real, of_fake = _at_least_single(real.scores), _at_least_single(fake.scores)
        loss = (1 - of_real).relu().mean() + (1 + of_fake).relu().mean()
        return {"loss": loss, "real_score": of_real.detach().mean(), "fake_score": of_fake.detach().mean()}


class FeatureMatching(AdversarialLoss):
    """Another loss plus feature matching for the generator (HiFi-GAN, arXiv 2010.05646, §2.4; BigVGAN, DAC, Vocos).

    The term is the mean absolute difference of real and fake features, summed over a sub-discriminator's layers, the
    scores included.

    Args:
        adversarial: the other loss.
        weight: the weight of the term in the generator's loss (HiFi-GAN, BigVGAN and DAC: 2).
    """

    sees_real = sees_features = True

    def __init__(self, adversarial: AdversarialLoss, weight: float) -> None:
        self.adversarial, self.weight, self.collapse = adversarial, weight, adversarial.collapse

    def generator(self, fake: Judged, real: Judged | None = None) -> dict[str, Tensor]:
        """Return the other loss's terms, ``"loss"`` plus the weighted term, and the term as ``"feature_matching"``."""
        assert real is not None
        terms = self.adversarial.generator(fake, real)
        # Differences in the features' own precision, because half precision saves memory; sums in single precision.
        layers = [
            (of_fake - of_real).abs().mean(dtype=torch.promote_types(of_fake.dtype, torch.float32))
            for of_fake, of_real in zip(fake.features, real.features, strict=True)
        ]
        term, alone = torch.stack(layers).sum(), terms["loss"]
        loss = alone + self.weight * term
        return {"adversarial": alone.detach(), **terms, "loss": loss, "feature_matching": term.detach()}

    def discriminator(self, real: Judged, fake: Judged) -> dict[str, Tensor]:
        """Return the other loss's terms."""
        return self.adversarial.discriminator(real, fake)


def mean_over_parts(terms: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Combine one player's losses over all sub-discriminators (UnivNet, arXiv 2106.07889, §2.3).

    Args:
        terms: what an ``AdversarialLoss`` returned for each sub-discriminator, by its name.

    Returns:
        The mean of every term, by its name, and each sub-discriminator's adversarial loss, by the sub-discriminator's.

    Raises:
        ValueError: if ``terms`` is empty.
    """
    if not terms:
        raise ValueError("the scores of at least one sub-discriminator are needed")
    means = {key: torch.stack([each[key] for each in terms.values()]).mean() for key in next(iter(terms.values()))}
    parts = {name: each.get("adversarial", each["loss"]) for name, each in terms.items()}
    return {"loss": means.pop("loss"), **parts, **means}


def _require_same_shape(fake: Tensor, real: Tensor) -> None:
    if fake.shape != real.shape or fake.dim() != 3 or fake.shape[1] != 1:
        raise ValueError(
            f"expected two (batch, 1, samples) of one shape, got {tuple(fake.shape)} and {tuple(real.shape)}"
        )


def _magnitude(audio: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
    padded = pad_ends(audio, n_fft // 2, n_fft // 2)  # as torch.stft would centre the frames
    spectrum = torch.stft(padded, n_fft, hop, len(window), window, center=False, return_complex=True)
    return spectrum.abs().clamp(min=_MAGNITUDE_FLOOR)


def _at_least_single(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
