"""Discriminators: sub-discriminators that each judge one view of the audio, and name their scores.

Each `forward` maps audio (batch, 1, samples) to a dict from the sub-discriminator's name to its scores (batch, N). A
sub-discriminator's own, with ``with_features=True``, returns its scores and a list of what its layers put out: the
activations and, last, the scores.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from univnet.models.base import BaseDiscriminator


class Discriminator(BaseDiscriminator):
    """UnivNet's discriminator: spectrograms at several resolutions and periods (arXiv 2106.07889, §2.2).

    To leave a part out, give it nothing to look at: `MultiPeriodDiscriminator(periods=())`.

    Args:
        mrd: Multi-resolution spectrogram discriminator; UnivNet's when None.
        mpd: Multi-period discriminator; HiFi-GAN's when None.

    Raises:
        ValueError: Both parts are empty.
    """

    def __init__(
        self,
        mrd: "MultiResolutionSpectrogramDiscriminator | None" = None,
        mpd: "MultiPeriodDiscriminator | None" = None,
    ) -> None:
        super().__init__()
        self.mrd = MultiResolutionSpectrogramDiscriminator() if mrd is None else mrd
        self.mpd = MultiPeriodDiscriminator() if mpd is None else mpd
        if not self.mrd.discriminators and not self.mpd.discriminators:
            raise ValueError("Discriminator: at least one resolution or one period is needed.")

    def parts(self) -> dict[str, nn.Module]:
        """Return the sub-discriminators by name. Subclasses add theirs here.

        Training runs these, one by one, and never `forward`, neither this one's nor the MRD's or MPD's.
        """
        return dict(self.mrd.discriminators.items()) | dict(self.mpd.discriminators.items())


class MultiResolutionSpectrogramDiscriminator(nn.Module):
    """2-D convolutions on magnitude spectrograms at several resolutions (UnivNet, arXiv 2106.07889, §2.2).

    Args:
        resolutions: (FFT size, hop, window length) of each sub-discriminator, in samples; named `mrd_<FFT size>`.
        channels: Width of the convolutions.
        leaky_slope: Negative slope of the leaky ReLUs.

    Raises:
        ValueError: Names every argument that is wrong; in `forward`, audio that is too short.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        channels: int = 32,
        leaky_slope: float = 0.2,
    ) -> None:
        super().__init__()
        mistakes = [
            f"resolution {tuple(resolution)} must be (FFT size, hop, window length), neither hop nor window longer "
            "than the FFT"
            for resolution in resolutions
            if len(resolution) != 3 or min(resolution) < 1 or resolution[0] < max(resolution[1:])
        ]
        sizes = [resolution[0] for resolution in resolutions]
        if len(set(sizes)) < len(sizes):
            mistakes.append(f"the FFT sizes name the sub-discriminators and must differ, got {sizes}")
        mistakes += _common_mistakes({"channels": channels}, leaky_slope)
        _raise(self, mistakes)
        self.discriminators = nn.ModuleDict(
            {f"mrd_{r[0]}": _SpectrogramDiscriminator(*r, channels, leaky_slope) for r in resolutions}
        )

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Score audio (batch, 1, samples): {"mrd_1024": (batch, N), …}."""
        return {name: discriminator(audio) for name, discriminator in self.discriminators.items()}


class MultiPeriodDiscriminator(nn.Module):
    """Convolutions along audio folded at several periods (HiFi-GAN, arXiv 2010.05646, §2.3).

    Args:
        periods: Period of each sub-discriminator, in samples; named `mpd_<period>`.
        channels: Width of each convolution.
        kernel_size: Size of the convolutions along time, odd.
        stride: Stride of all but the last.
        leaky_slope: Negative slope of the leaky ReLUs.

    Raises:
        ValueError: Names every argument that is wrong; in `forward`, audio that is too short.
    """

    def __init__(
        self,
        periods: Sequence[int] = (2, 3, 5, 7, 11),
        channels: Sequence[int] = (64, 128, 256, 512, 1024),
        kernel_size: int = 5,
        stride: int = 3,
        leaky_slope: float = 0.2,
    ) -> None:
        super().__init__()
        mistakes = []
        if any(period < 1 for period in periods) or len(set(periods)) < len(periods):
            mistakes.append(f"periods must be positive and differ, got {list(periods)}")
        if not channels or min(channels) < 1:
            mistakes.append(f"channels must be one or more positive numbers, got {list(channels)}")
        mistakes += _common_mistakes({"kernel_size": kernel_size, "stride": stride}, leaky_slope)
        if kernel_size % 2 == 0:
            mistakes.append(f"kernel_size must be odd, got {kernel_size}")
        _raise(self, mistakes)
        self.discriminators = nn.ModuleDict(
            {f"mpd_{p}": _PeriodDiscriminator(p, channels, kernel_size, stride, leaky_slope) for p in periods}
        )

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Score audio (batch, 1, samples): {"mpd_2": (batch, N), …}."""
        return {name: discriminator(audio) for name, discriminator in self.discriminators.items()}


class _SwappedConv2d(nn.Conv2d):
    """Convolution of views that lie with their two axes swapped; weight and arguments are of the unswapped view."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self.padding, tuple)  # and not one of torch's words for it
        return F.conv2d(input, self.weight.transpose(2, 3), self.bias, self.stride[::-1], self.padding[::-1])


class _ConvolutionalDiscriminator(nn.Module):
    """Leaky convolutions of a view that lies with its two axes swapped, then one that scores."""

    def __init__(self, convs: Sequence[nn.Conv2d], conv_post: nn.Conv2d, leaky_slope: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)
        self.conv_post = weight_norm(conv_post)
        self.leaky_slope = leaky_slope

    def score(self, view: Tensor, with_features: bool) -> Tensor | tuple[Tensor, list[Tensor]]:
        features = []
        for conv in self.convs:
            view = F.leaky_relu(conv(view), self.leaky_slope, inplace=True)
            if with_features:
                features.append(view)
        scores = self.conv_post(view).transpose(2, 3).flatten(1)
        return (scores, [*features, scores]) if with_features else scores


class _SpectrogramDiscriminator(_ConvolutionalDiscriminator):
    """Convolutions on bins × frames.

    They lie as frames × bins, on the CPU with channels innermost, which is faster there.
    """

    def __init__(self, n_fft: int, hop: int, window: int, channels: int, leaky_slope: float) -> None:
        convs = [
            _SwappedConv2d(1, channels, (3, 9), padding=(1, 4)),
            *(_SwappedConv2d(channels, channels, (3, 9), stride=(1, 2), padding=(1, 4)) for _ in range(3)),
            _SwappedConv2d(channels, channels, (3, 3), padding=(1, 1)),
        ]
        super().__init__(convs, _SwappedConv2d(channels, 1, (3, 3), padding=(1, 1)), leaky_slope)
        self.n_fft, self.hop, self.window = n_fft, hop, window

    def forward(self, audio: Tensor, with_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        view = self.spectrogram(audio).transpose(1, 2)
        if view.device.type != "cpu":
            return self.score(view.unsqueeze(1), with_features)
        # One channel looks the same in either layout: these strides make the convolutions choose channels-last.
        return self.score(view.contiguous().unsqueeze(-1).permute(0, 3, 1, 2), with_features)

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Magnitudes (batch, bins, frames) of audio (batch, 1, samples), never below single precision."""
        padding = (self.n_fft - self.hop) // 2
        _require_samples(audio, max(padding + 1, self.n_fft - 2 * padding), f"an FFT of {self.n_fft} samples")
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio if audio.dtype == torch.float64 else audio.float()
            padded = F.pad(audio, (padding, padding), "reflect").squeeze(1)
            spectrum = torch.stft(
                padded,
                self.n_fft,
                self.hop,
                self.window,
                padded.new_ones(self.window),  # rectangular: the reference gives none
                center=False,
                return_complex=True,
            )
            # |z| of a complex number: its gradient at an exact zero (digital silence) is 0, that of a root is not.
            return spectrum.abs()


class _PeriodDiscriminator(_ConvolutionalDiscriminator):
    """Convolutions along each phase of a period, apart from the others, on time × phases.

    They lie as phases × time, up to 1.2 times as fast on the CPU.
    """

    def __init__(self, period: int, channels: Sequence[int], kernel_size: int, stride: int, leaky_slope: float) -> None:
        strides = [stride] * (len(channels) - 1) + [1]
        convs = [
            _SwappedConv2d(fan_in, fan_out, (kernel_size, 1), (step, 1), padding=(kernel_size // 2, 0))
            for fan_in, fan_out, step in zip((1, *channels), channels, strides, strict=False)
        ]
        super().__init__(convs, _SwappedConv2d(channels[-1], 1, (3, 1), padding=(1, 0)), leaky_slope)
        self.period = period

    def forward(self, audio: Tensor, with_features: bool = False) -> Tensor | tuple[Tensor, list[Tensor]]:
        missing = -audio.shape[-1] % self.period
        _require_samples(audio, missing + 1, f"a period of {self.period} samples")
        if missing:
            audio = F.pad(audio, (0, missing), "reflect")
        return self.score(audio.unflatten(-1, (-1, self.period)).transpose(2, 3).contiguous(), with_features)


def _require_samples(audio: Tensor, least: int, what: str) -> None:
    if audio.dim() != 3 or audio.shape[1] != 1:
        raise ValueError(f"Expected audio of shape (batch, 1, samples), got {tuple(audio.shape)}.")
    if audio.shape[2] < least:
        raise ValueError(f"Audio of {audio.shape[2]} samples is too short for {what}: at least {least} are needed.")


def _common_mistakes(positive: dict[str, int], leaky_slope: float) -> list[str]:
    mistakes = [f"{name} must be positive, got {value}" for name, value in positive.items() if value < 1]
    if not 0 <= leaky_slope < 1:
        mistakes.append(f"leaky_slope must be in [0, 1), got {leaky_slope}")
    return mistakes


def _raise(module: nn.Module, mistakes: list[str]) -> None:
    if mistakes:
        raise ValueError(f"{type(module).__name__}: {'; '.join(mistakes)}.")
