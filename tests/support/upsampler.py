"""A generator that is none of ours: it keeps to the contract alone, and takes no noise."""

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from univnet.models import BaseGenerator, register_generator


@register_generator
class Upsampler(BaseGenerator):
    """Transposed convolutions with a residual one after each, as in HiFi-GAN (arXiv 2010.05646, §2.2), only less."""

    def __init__(self, n_mels: int = 20, channels: int = 8, strides: tuple[int, ...] = (16, 16)) -> None:
        super().__init__()
        self._config = {"n_mels": n_mels, "channels": channels, "strides": list(strides)}
        self.n_mels, self.hop_length = n_mels, math.prod(strides)
        self.context_frames = 3 + 1 + 1  # the first convolution, the first upsampling, and all the rest together
        self.conv_pre = weight_norm(nn.Conv1d(n_mels, channels, 7, padding=3))
        self.upsamplings = nn.ModuleList(
            weight_norm(nn.ConvTranspose1d(channels, channels, 2 * stride, stride, stride // 2)) for stride in strides
        )
        self.residuals = nn.ModuleList(weight_norm(nn.Conv1d(channels, channels, 3, padding=1)) for _ in strides)
        self.conv_post = weight_norm(nn.Conv1d(channels, 1, 7, padding=3))

    @property
    def config(self) -> dict[str, Any]:
        return dict(self._config)

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        assert noise.shape == (mel.shape[0], 0, mel.shape[2])
        x = self.conv_pre(mel)
        for upsampling, residual in zip(self.upsamplings, self.residuals, strict=True):
            x = upsampling(F.leaky_relu(x, 0.1))
            x = x + residual(F.leaky_relu(x, 0.1))
        return torch.tanh(self.conv_post(F.leaky_relu(x, 0.1)))
