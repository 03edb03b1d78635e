"""The losses of UnivNet's two players, each as a flat dict of named scalar terms."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

_MAGNITUDE_FLOOR = 1e-7**0.5


class MultiResolutionSTFTLoss(nn.Module):
    """Distance of magnitude spectrograms (Parallel WaveGAN, arXiv 1910.11480, §2.2; UnivNet, 2106.07889, §2.3).

    Two terms, each the mean over the resolutions, whose sum is the loss: spectral convergence, the Frobenius norm of
    the magnitudes' difference over that of the real magnitudes, and the mean absolute difference of log magnitudes.
    Hann window, centred frames, reflect padding, magnitudes floored at √1e-7. Always at least single precision.

    Args:
        resolutions: (FFT size, hop, window length) in samples.
        per_example: Spectral convergence as the mean over the examples of their own ratios. The reference's is one
            ratio of the norms over the whole batch, which is not a mean over examples: gradients accumulated over
            micro-batches then differ from the whole batch's. Per example they are equal, but a quiet example counts
            as much as a loud one.
        silence_rms: Used per example, where a ratio would blow up on silence: an example with less spectral energy
            than white noise of this RMS (0.01 is −40 dBFS) is divided by that noise's norm instead.

    Raises:
        ValueError: Names every argument that is wrong; in `forward`, shapes that differ or audio that is too short.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        per_example: bool = False,
        silence_rms: float = 0.01,
    ) -> None:
        super().__init__()
        mistakes = [
            f"resolution {tuple(resolution)} must be (FFT size, hop, window length), the window no longer than the FFT"
            for resolution in resolutions
            if len(resolution) != 3 or min(resolution) < 1 or resolution[0] < resolution[2]
        ]
        if not resolutions:
            mistakes.append("at least one resolution is needed")
        if silence_rms <= 0:
            mistakes.append(f"silence_rms must be positive, got {silence_rms}")
        if mistakes:
            raise ValueError(f"MultiResolutionSTFTLoss: {'; '.join(mistakes)}.")
        self.resolutions = tuple(tuple(resolution) for resolution in resolutions)
        self.per_example, self.silence_rms = per_example, silence_rms

    def forward(self, fake: Tensor, real: Tensor) -> dict[str, Tensor]:
        """Compare audio with the original, both (batch, 1, samples).

        Returns:
            {"spectral_convergence": scalar, "log_magnitude": scalar}.
        """
        if fake.shape != real.shape or fake.dim() != 3 or fake.shape[1] != 1:
            raise ValueError(
                f"Expected two (batch, 1, samples) of one shape, got {tuple(fake.shape)} and {tuple(real.shape)}."
            )
        least = max(resolution[0] for resolution in self.resolutions) // 2 + 1
        if fake.shape[2] < least:
            raise ValueError(f"Audio of {fake.shape[2]} samples is too short: at least {least} are needed.")
        convergence, log_magnitude = [], []
        with torch.autocast(fake.device.type, enabled=False):
            fake, real = _at_least_single(fake).squeeze(1), _at_least_single(real).squeeze(1)
            for n_fft, hop, length in self.resolutions:
                # Made anew: a buffer would be rounded by half-precision modules, a cache filled in inference mode
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


def least_squares_of_discriminator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """Least-squares loss of one sub-discriminator: real scores to 1, fake ones to 0 (UnivNet, arXiv 2106.07889, §2.3).

    Args:
        real: Its scores of real audio, any shape.
        fake: Its scores of generated audio that is detached from the generator.

    Returns:
        {"loss": mean (1 − real)² + mean fake², "real_score" and "fake_score": the mean scores, without gradient}.
    """
    real, fake = _at_least_single(real), _at_least_single(fake)
    loss = (1 - real).square().mean() + fake.square().mean()
    return {"loss": loss, "real_score": real.detach().mean(), "fake_score": fake.detach().mean()}


def least_squares_of_generator(fake: Tensor) -> dict[str, Tensor]:
    """Least-squares loss of the generator against one sub-discriminator: fake scores to 1 (arXiv 2106.07889, §2.3).

    Args:
        fake: The sub-discriminator's scores of generated audio, any shape, *not* detached from the generator.

    Returns:
        {"loss": mean (1 − fake)²}.
    """
    return {"loss": (1 - _at_least_single(fake)).square().mean()}


def adversarial_loss(terms: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Put the losses over all sub-discriminators together (UnivNet, arXiv 2106.07889, §2.3).

    Args:
        terms: Each sub-discriminator's, of either player: ``"loss"`` and others, the same for all.

    Returns:
        {"adversarial": the mean of the losses, <name>: each loss, and the mean of each other term by its name}.

    Raises:
        ValueError: There are none.
    """
    if not terms:
        raise ValueError("The scores of at least one sub-discriminator are needed.")
    means = {key: torch.stack([each[key] for each in terms.values()]).mean() for key in next(iter(terms.values()))}
    return {"adversarial": means.pop("loss"), **{name: each["loss"] for name, each in terms.items()}, **means}


def _magnitude(audio: Tensor, n_fft: int, hop: int, window: Tensor) -> Tensor:
    spectrum = torch.stft(audio, n_fft, hop, len(window), window, return_complex=True)
    return spectrum.abs().clamp(min=_MAGNITUDE_FLOOR)


def _at_least_single(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
