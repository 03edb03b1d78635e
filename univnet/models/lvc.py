"""Location-variable convolution: each mel frame's stretch of audio has its own, predicted, convolution kernel.

Sources: LVCNet (arXiv 2102.10815, §2) for the operation and the kernel predictor; UnivNet (arXiv 2106.07889, §2.1)
for the gated residual block around it.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def location_variable_convolution(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
    """Convolve each `hop_size` samples of `x` with the kernel of its frame (LVCNet, arXiv 2102.10815, §2).

    The sequence is zero-padded as a whole by (K − 1) / 2 on each side: a frame's kernel sees its neighbours' samples.

    Args:
        x: Sequence, (batch, in_channels, frames · hop_size).
        kernel: One kernel a frame, (batch, in_channels, out_channels, K, frames), K odd.
        bias: One bias a frame, (batch, out_channels, frames).
        hop_size: Samples a frame.

    Returns:
        (batch, out_channels, frames · hop_size).

    Raises:
        ValueError: K is even, or the shapes do not fit together.
    """
    batch, channels, length = x.shape
    out_channels, size, frames = kernel.shape[2:]
    if size % 2 == 0:
        raise ValueError(f"The kernel size must be odd, got {size}.")
    if length != frames * hop_size:
        raise ValueError(f"{frames} frames of {hop_size} samples need {frames * hop_size} samples, got {length}.")
    if kernel.shape[:2] != x.shape[:2] or bias.shape != (batch, out_channels, frames):
        raise ValueError(
            f"The shapes of x {tuple(x.shape)}, kernel {tuple(kernel.shape)} and bias {tuple(bias.shape)} do not fit."
        )
    # One matrix product a frame: (out, K·in) · (K·in, hop). The K shifted copies of x are its columns.
    padded = F.pad(x, (size // 2, size // 2))
    taps = torch.cat([padded[..., tap : tap + length] for tap in range(size)], dim=1)
    columns = taps.view(batch, size * channels, frames, hop_size).transpose(1, 2).flatten(0, 1)
    # out_channels last: measured 2x faster to lay out than (out, K·in), and matrix products transpose for free.
    weights = kernel.permute(0, 4, 3, 1, 2).reshape(batch * frames, size * channels, out_channels)
    biases = bias.transpose(1, 2).reshape(batch * frames, out_channels, 1)
    y = torch.baddbmm(biases, weights.transpose(1, 2), columns)
    return y.view(batch, frames, out_channels, hop_size).transpose(1, 2).reshape(batch, out_channels, length)


class KernelPredictor(nn.Module):
    """Predict the kernels and biases of an `LVCBlock`'s layers from the mel (LVCNet, arXiv 2102.10815, §2).

    Args:
        n_mels: Mel bands.
        channels: Input channels of the predicted kernels; they have twice as many outputs, for the gate.
        layers: How many layers to predict for.
        kernel_size: K of the predicted kernels, odd.
        hidden_channels: Width of the predictor.
        blocks: Residual blocks of the predictor.
        hidden_kernel_size: Kernel size of the predictor's own convolutions (the first has 5), odd.
        dropout: Dropout probability at the start of each residual block.
        leaky_slope: Negative slope of the leaky ReLUs.
    """

    def __init__(
        self,
        n_mels: int = 100,
        channels: int = 32,
        layers: int = 4,
        kernel_size: int = 3,
        hidden_channels: int = 64,
        blocks: int = 3,
        hidden_kernel_size: int = 3,
        dropout: float = 0.0,
        leaky_slope: float = 0.2,
    ) -> None:
        super().__init__()
        self.kernel_shape = (layers, channels, 2 * channels, kernel_size)
        self.bias_shape = (layers, 2 * channels)
        self.leaky_slope = leaky_slope

        def conv(out_channels: int) -> nn.Conv1d:
            return nn.Conv1d(hidden_channels, out_channels, hidden_kernel_size, padding=hidden_kernel_size // 2)

        self.input_conv = nn.Conv1d(n_mels, hidden_channels, 5, padding=2)
        self.resblocks = nn.ModuleList(
            _PredictorBlock(conv(hidden_channels), conv(hidden_channels), dropout, leaky_slope) for _ in range(blocks)
        )
        self.kernel_conv = conv(layers * channels * 2 * channels * kernel_size)
        self.bias_conv = conv(layers * 2 * channels)

    def forward(self, mel: Tensor) -> tuple[Tensor, Tensor]:
        """Map a mel (batch, n_mels, frames) to all layers' kernels and biases.

        Returns:
            Kernels (batch, layers, channels, 2 · channels, K, frames) and biases (batch, layers, 2 · channels, frames).
        """
        x = F.leaky_relu(self.input_conv(mel), self.leaky_slope, inplace=True)
        for block in self.resblocks:
            x = block(x)
        return self.kernel_conv(x).unflatten(1, self.kernel_shape), self.bias_conv(x).unflatten(1, self.bias_shape)


class _PredictorBlock(nn.Module):
    def __init__(self, conv1: nn.Conv1d, conv2: nn.Conv1d, dropout: float, leaky_slope: float) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        self.conv1, self.conv2 = conv1, conv2
        self.leaky_slope = leaky_slope

    def forward(self, x: Tensor) -> Tensor:
        y = F.leaky_relu(self.conv1(self.dropout(x)), self.leaky_slope, inplace=True)
        return x + F.leaky_relu(self.conv2(y), self.leaky_slope, inplace=True)


class LVCLayer(nn.Module):
    """Dilated convolution, location-variable convolution, gate, skip (UnivNet, arXiv 2106.07889, §2.1).

    Args:
        channels: Width.
        kernel_size: Size of the dilated convolution, odd.
        dilation: Its dilation.
        leaky_slope: Negative slope of the leaky ReLUs.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, leaky_slope: float) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
        self.leaky_slope = leaky_slope

    def forward(self, x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
        """Map (batch, channels, samples) to the same shape; the other arguments are the convolution's own."""
        y = F.leaky_relu(self.conv(F.leaky_relu(x, self.leaky_slope)), self.leaky_slope, inplace=True)
        gate, value = location_variable_convolution(y, kernel, bias, hop_size).chunk(2, dim=1)
        return x + torch.sigmoid(gate) * torch.tanh(value)


class LVCBlock(nn.Module):
    """Upsample by `stride`, then one `LVCLayer` a dilation (UnivNet, arXiv 2106.07889, §2.1).

    Args:
        kernel_predictor: Predicts the kernels of as many layers as there are dilations.
        channels: Width.
        stride: Upsampling factor, at least 2.
        hop_size: Samples a mel frame after the upsampling.
        dilations: Dilation of each layer.
        kernel_size: Size of the dilated convolutions, odd.
        leaky_slope: Negative slope of the leaky ReLUs.
    """

    def __init__(
        self,
        kernel_predictor: KernelPredictor,
        channels: int,
        stride: int,
        hop_size: int,
        dilations: Sequence[int],
        kernel_size: int,
        leaky_slope: float,
    ) -> None:
        super().__init__()
        self.hop_size, self.leaky_slope = hop_size, leaky_slope
        self.convt_pre = nn.ConvTranspose1d(
            channels,
            channels,
            2 * stride,
            stride=stride,
            padding=stride // 2 + stride % 2,
            output_padding=stride % 2,
        )
        self.kernel_predictor = kernel_predictor
        self.resblocks = nn.ModuleList(LVCLayer(channels, kernel_size, dilation, leaky_slope) for dilation in dilations)

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """Map x (batch, channels, frames · hop_size / stride) under mel (batch, n_mels, frames).

        Returns:
            (batch, channels, frames · hop_size).
        """
        x = self.convt_pre(F.leaky_relu(x, self.leaky_slope))
        kernels, biases = self.kernel_predictor(mel)
        for layer, kernel, bias in zip(self.resblocks, kernels.unbind(1), biases.unbind(1), strict=True):
            x = layer(x, kernel, bias, self.hop_size)
        return x
