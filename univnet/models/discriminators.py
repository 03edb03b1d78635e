"""Discriminators: sub-discriminators that each judge one view of the audio.

A discriminator's ``forward`` maps audio (batch, 1, samples) to a dict of scores (batch, N), by the sub-discriminators'
names. A sub-discriminator's ``forward`` returns its scores; with ``with_features=True``, also a list of its layers'
outputs: the activations and, last, the scores.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from univnet.common.mistakes import Mistakes
from univnet.common.padding import pad_ends
from univnet.models.base import BaseDiscriminator


class Discriminator(BaseDiscriminator):
    """UnivNet's discriminator: spectrograms at several resolutions and periods (arXiv 2106.07889, §2.2).

    To leave one kind out, give it no views: ``MultiPeriodDiscriminator(periods=())``.

    Args:
        mrd: multi-resolution spectrogram discriminator; default: UnivNet's.
        mpd: multi-period discriminator; default: HiFi-GAN's.

    Raises:
        ValueError: if both are empty.
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
            raise ValueError("Discriminator: at least one resolution or one period is needed")

    def parts(self) -> dict[str, nn.Module]:
        """Return the sub-discriminators by name. Subclasses add theirs here.

        Training runs these, one after the other, and no ``forward`` of the whole, the MRD or the MPD.
        """
        return dict(self.mrd.discriminators.items()) | dict(self.mpd.discriminators.items())


class MultiResolutionSpectrogramDiscriminator(nn.Module):
    """2-D convolutions on magnitude spectrograms at several resolutions (UnivNet, arXiv 2106.07889, §2.2).

    Args:
        resolutions: (FFT size, hop, window length) of each sub-discriminator, in samples; named ``mrd_<FFT size>``.
        channels: channels of the convolutions.
        leaky_slope: negative slope of the leaky ReLUs.

    Raises:
        ValueError: if arguments are out of range (it names all of them); in ``forward``, if the audio is too short.
    """

    def __init__(
        self,
        resolutions: Sequence[tuple[int, int, int]] = ((1024, 120, 600), (2048, 240, 1200), (512, 50, 240)),
        channels: int = 32,
        leaky_slope: float = 0.2,
    ) -> None:
        super().__init__()
        mistakes = Mistakes(self)
        for resolution in resolutions:
            mistakes.unless(
                len(resolution) == 3 and min(resolution) >= 1 and max(resolution[1:]) <= resolution[0],
                f"resolution {tuple(resolution)} must be (FFT size, hop, window length), neither hop nor window longer "
                "than the FFT",
            )
        sizes = [resolution[0] for resolution in resolutions]
        mistakes.unless(
            len(set(sizes)) == len(sizes), f"the FFT sizes name the sub-discriminators and must differ, got {sizes}"
        )
        _check(mistakes, {"channels": channels}, leaky_slope)
        mistakes.raise_all()
        self.config: dict[str, Any] = {
            "resolutions": [list(each) for each in resolutions],
            "channels": channels,
            "leaky_slope": leaky_slope,
        }
        self.discriminators = nn.ModuleDict(
            {f"mrd_{r[0]}": _SpectrogramDiscriminator(*r, channels, leaky_slope) for r in resolutions}
        )

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Return the scores of audio (batch, 1, samples): ``{"mrd_1024": (batch, N), …}``."""
        return {name: discriminator(audio) for name, discriminator in self.discriminators.items()}


class MultiPeriodDiscriminator(nn.Module):
    """Convolutions along audio folded at several periods (HiFi-GAN, arXiv 2010.05646, §2.3).

    Args:
        periods: period of each sub-discriminator, in samples; named ``mpd_<period>``.
        channels: output channels of each convolution.
        kernel_size: size of the convolutions along time, odd.
        stride: stride of all convolutions but the last.
        leaky_slope: negative slope of the leaky ReLUs.

    Raises:
        ValueError: if arguments are out of range (it names all of them); in ``forward``, if the audio is too short.
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
        mistakes = Mistakes(self)
        different = len(set(periods)) == len(periods)
        mistakes.unless(
            different and min(periods, default=1) >= 1, f"periods must be positive and differ, got {list(periods)}"
        )
        mistakes.unless(
            min(channels, default=0) >= 1, f"channels must be one or more positive numbers, got {list(channels)}"
        )
        _check(mistakes, {"kernel_size": kernel_size, "stride": stride}, leaky_slope)
        mistakes.unless(kernel_size % 2 == 1, f"kernel_size must be odd, got {kernel_size}")
        mistakes.raise_all()
        self.config: dict[str, Any] = {
            "periods": list(periods),
            "channels": list(channels),
            "kernel_size": kernel_size,
            "stride": stride,
            "leaky_slope": leaky_slope,
        }
        self.discriminators = nn.ModuleDict(
            {f"mpd_{p}": _PeriodDiscriminator(p, channels, kernel_size, stride, leaky_slope) for p in periods}
        )

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Return the scores of audio (batch, 1, samples): ``{"mpd_2": (batch, N), …}``."""
        return {name: discriminator(audio) for name, discriminator in self.discriminators.items()}


class _SwappedConv2d(nn.Conv2d):
    """Convolves a view whose two axes are swapped in memory; weight and arguments are for the axes in order."""

    def forward(self, input: Tensor) -> Tensor:
        assert isinstance(self.padding, tuple)  # not a string such as "same"
        return F.conv2d(input, self.weight.transpose(2, 3), self.bias, self.stride[::-1], self.padding[::-1])


class _ConvolutionalDiscriminator(nn.Module):
    """Convolutions with leaky ReLUs on a view whose two axes are swapped, then one convolution that scores.

    Attributes:
        channels_last: whether channels come last in memory; ``None``: where that has been measured to be faster.
    """

    channels_last: bool | None = None

    def __init__(self, convs: Sequence[nn.Conv2d], conv_post: nn.Conv2d, leaky_slope: float) -> None:
        super().__init__()
        self.convs = nn.ModuleList(weight_norm(conv) for conv in convs)
        self.conv_post = weight_norm(conv_post)
        self.leaky_slope = leaky_slope

    def laid_out(self, view: Tensor, channels_last: bool) -> Tensor:
        """Add the one channel to a contiguous view (batch, …, …)."""
        if not (channels_last if self.channels_last is None else self.channels_last):
            return view.unsqueeze(1)
        # One channel has the same layout either way: these strides make the convolutions choose channels-last.
        return view.unsqueeze(-1).permute(0, 3, 1, 2)

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

    The memory layout is frames × bins, on the CPU with channels last, which is faster there.
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
        view = self.spectrogram(audio).transpose(1, 2).contiguous()
        return self.score(self.laid_out(view, view.device.type == "cpu"), with_features)

    def spectrogram(self, audio: Tensor) -> Tensor:
        """Return magnitudes (batch, bins, frames) of audio (batch, 1, samples), in single precision or above."""
        padding = (self.n_fft - self.hop) // 2
        _require_samples(audio, max(padding + 1, self.n_fft - 2 * padding), f"an FFT of {self.n_fft} samples")
        with torch.autocast(audio.device.type, enabled=False):
            audio = audio if audio.dtype == torch.float64 else audio.float()
            padded = pad_ends(audio, padding, padding).squeeze(1)
            spectrum = torch.stft(
                padded,
                self.n_fft,
                self.hop,
                self.window,
                padded.new_ones(self.window),  # rectangular: the reference gives no window
                center=False,
                return_complex=True,
            )
            # abs() of complex numbers has gradient 0 at exact zeros (digital silence); a square root has not.
            return spectrum.abs()


class _PeriodDiscriminator(_ConvolutionalDiscriminator):
    """Convolutions along time, for each phase of a period separately, on time × phases.

    The memory layout is phases × time, which is up to 1.2 times as fast on the CPU.
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
            audio = pad_ends(audio, 0, missing)
        view = audio.squeeze(1).unflatten(-1, (-1, self.period)).transpose(1, 2).contiguous()
        return self.score(self.laid_out(view, False), with_features)


def _require_samples(audio: Tensor, least: int, what: str) -> None:
    if audio.dim() != 3 or audio.shape[1] != 1:
        raise ValueError(f"expected audio of shape (batch, 1, samples), got {tuple(audio.shape)}")
    if audio.shape[2] < least:
        raise ValueError(f"audio of {audio.shape[2]} samples is too short for {what}: at least {least} are needed")


def _check(mistakes: Mistakes, positive: dict[str, int], leaky_slope: float) -> None:
    for name, value in positive.items():
        mistakes.unless(value >= 1, f"{name} must be positive, got {value}")
    mistakes.unless(0 <= leaky_slope < 1, f"leaky_slope must be in [0, 1), got {leaky_slope}")
