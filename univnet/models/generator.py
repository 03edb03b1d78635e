"""The UnivNet generator: it turns noise into audio, controlled by a mel-spectrogram."""

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import accumulate
from operator import mul
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from univnet.common.mistakes import Mistakes
from univnet.common.padding import cut_ends, pad_ends
from univnet.models.base import BaseGenerator
from univnet.models.kernel_predictor import KernelPredictor
from univnet.models.lvc_block import LVCBlock
from univnet.models.registry import register_generator


@register_generator
class Generator(BaseGenerator):
    """UnivNet's generator (arXiv 2106.07889, §2.1), with weight normalization on every convolution.

    ``channels=16`` is UnivNet-c16 (4.00 M parameters), ``channels=32`` UnivNet-c32 (14.87 M), the gains of weight
    normalization included. Without autograd (``torch.no_grad``, ``torch.inference_mode``) the gates work in place:
    less memory, same audio.

    Args:
        n_mels: number of mel bands.
        noise_channels: channels of the input noise.
        channels: channels of the residual blocks.
        strides: upsampling factor of each block, at least 2; their product is the hop length.
        dilations: dilation of each layer of a block, the same for every block.
        kernel_size: size of the dilated and of the predicted kernels, odd.
        leaky_slope: negative slope of the leaky ReLUs.
        predictor_channels: channels of the kernel predictors.
        predictor_blocks: number of residual blocks of a kernel predictor.
        predictor_kernel_size: kernel size of the predictors' own convolutions, odd.
        predictor_dropout: dropout probability in the kernel predictors.

    Raises:
        ValueError: if arguments are out of range; it names all of them.
    """

    cuts = True

    def __init__(
        self,
        n_mels: int = 100,
        noise_channels: int = 64,
        channels: int = 32,
        strides: Sequence[int] = (8, 8, 4),
        dilations: Sequence[int] = (1, 3, 9, 27),
        kernel_size: int = 3,
        leaky_slope: float = 0.2,
        predictor_channels: int = 64,
        predictor_blocks: int = 3,
        predictor_kernel_size: int = 3,
        predictor_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self._config: dict[str, Any] = {
            "n_mels": n_mels,
            "noise_channels": noise_channels,
            "channels": channels,
            "strides": list(strides),
            "dilations": list(dilations),
            "kernel_size": kernel_size,
            "leaky_slope": leaky_slope,
            "predictor_channels": predictor_channels,
            "predictor_blocks": predictor_blocks,
            "predictor_kernel_size": predictor_kernel_size,
            "predictor_dropout": predictor_dropout,
        }
        _check(Mistakes(self), self._config)
        self.n_mels, self.noise_channels, self.leaky_slope = n_mels, noise_channels, leaky_slope
        self.hop_length = math.prod(strides)
        self.conv_pre = _ReflectConv1d(noise_channels, channels, 7)
        self.resblocks = nn.ModuleList(
            LVCBlock(
                KernelPredictor(
                    n_mels,
                    channels,
                    len(dilations),
                    kernel_size,
                    predictor_channels,
                    predictor_blocks,
                    predictor_kernel_size,
                    predictor_dropout,
                    leaky_slope,
                ),
                channels,
                stride,
                hop_size,
                dilations,
                kernel_size,
                leaky_slope,
            )
            for stride, hop_size in zip(strides, accumulate(strides, mul), strict=True)
        )
        self.conv_post = _ReflectConv1d(channels, 1, 7)
        for module in list(self.modules()):
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                weight_norm(module)
        self._reaches = self._reaches_of_blocks()
        self.context_frames = self._context_frames()

    def _reaches_of_blocks(self) -> list[int]:
        """Return how many frames beside a frame its audio depends on, in the input of each block.

        A block reaches as far as its convolutions do (transposed, dilated and location-variable), at its own samples
        per frame.
        """
        c = self._config
        reach = Fraction(self.conv_post.kernel_size[0] // 2, self.hop_length)
        reaches: list[int] = []
        for stride, hop_size in reversed(list(zip(c["strides"], accumulate(c["strides"], mul), strict=True))):
            convolutions = sum(dilation + 1 for dilation in c["dilations"]) * (c["kernel_size"] // 2)
            # A transposed convolution reaches one input sample back.
            reach += Fraction(stride + convolutions, hop_size)
            reaches.insert(0, math.ceil(reach))
        return reaches

    def _context_frames(self) -> int:
        """Return how many mel frames on either side of a frame its audio depends on, at most (17 for UnivNet's sizes).

        The kernel predictor's convolutions, or that of the noise, reach further than the first block's input.
        """
        c = self._config
        predictor = 2 + (2 * c["predictor_blocks"] + 1) * (c["predictor_kernel_size"] // 2)
        return self._reaches[0] + max(predictor, self.conv_pre.kernel_size[0] // 2)

    @property
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain numbers and lists: ``Generator(**config)`` rebuilds it."""
        return {name: list(value) if isinstance(value, list) else value for name, value in self._config.items()}

    def forward(
        self,
        mel: Tensor,
        noise: Tensor | None = None,
        generator: torch.Generator | None = None,
        cut: tuple[int, int] = (0, 0),
    ) -> Tensor:
        """Synthesize audio.

        Args:
            mel: log-mel-spectrogram, (batch, n_mels, frames), of at least one frame.
            noise: standard normal noise, (batch, noise_channels, frames); drawn if ``None``.
            generator: source of the noise if it is drawn; default: torch's global one.
            cut: frames at the start and at the end whose audio is not wanted. Each block makes as few of them as the
                rest depends on: of ``context_frames`` the last one makes one.

        Returns:
            Audio in [−1, 1], (batch, 1, frames · hop_length), without that of the frames in ``cut``.

        Raises:
            ValueError: if the mel or the noise has another shape.
        """
        if mel.dim() != 3 or mel.shape[1] != self.n_mels or mel.shape[2] == 0:
            raise ValueError(f"expected a mel of shape (batch, {self.n_mels}, frames), got {tuple(mel.shape)}")
        shape = (mel.shape[0], self.noise_channels, mel.shape[2])
        if noise is None:
            noise = self.draw_noise(mel, generator)
        elif noise.shape != shape:
            raise ValueError(f"expected noise of shape {shape} for this mel, got {tuple(noise.shape)}")
        x, frame, lacks = self.conv_pre(noise), 1, (0, 0)  # samples per frame of x, and frames that it lacks
        for block, stride, reach in zip(self.resblocks, self._config["strides"], self._reaches, strict=True):
            left, right = (max(frames - reach, 0) for frames in cut)  # what no block from here on needs
            x = cut_ends(x, (left - lacks[0]) * frame, (right - lacks[1]) * frame)
            x, frame, lacks = block(x, mel, left, right), frame * stride, (left, right)
        audio = torch.tanh(self.conv_post(F.leaky_relu(x, self.leaky_slope)))
        return cut_ends(audio, (cut[0] - lacks[0]) * frame, (cut[1] - lacks[1]) * frame)

    def blocks_to_compile(self) -> nn.ModuleList:
        """Return the residual blocks; the first and last convolutions are not compiled."""
        return self.resblocks


class _ReflectConv1d(nn.Conv1d):
    """Pads by reflection to keep the length; with the edge value if the input is too short to reflect."""

    def forward(self, input: Tensor) -> Tensor:
        padding = self.kernel_size[0] // 2
        return super().forward(
            pad_ends(input, padding, padding, "reflect" if input.shape[-1] > padding else "replicate")
        )


def _check(mistakes: Mistakes, config: dict[str, Any]) -> None:
    for name in ("n_mels", "noise_channels", "channels", "kernel_size", "predictor_channels", "predictor_kernel_size"):
        mistakes.unless(config[name] >= 1, f"{name} must be positive, got {config[name]}")
        if name.endswith("kernel_size"):
            mistakes.unless(config[name] < 1 or config[name] % 2 == 1, f"{name} must be odd, got {config[name]}")
    for name, least in (("strides", 2), ("dilations", 1)):
        mistakes.unless(
            min(config[name], default=0) >= least,
            f"{name} must be one or more numbers of at least {least}, got {config[name]}",
        )
    blocks = config["predictor_blocks"]
    mistakes.unless(blocks >= 0, f"predictor_blocks must not be negative, got {blocks}")
    for name in ("leaky_slope", "predictor_dropout"):
        mistakes.unless(0 <= config[name] < 1, f"{name} must be in [0, 1), got {config[name]}")
    mistakes.raise_all()
