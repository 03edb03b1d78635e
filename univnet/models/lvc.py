"""Location-variable convolution: each mel frame's stretch of audio has its own, predicted, convolution kernel.

Sources: LVCNet (arXiv 2102.10815, §2) for the operation and the kernel predictor; UnivNet (arXiv 2106.07889, §2.1)
for the gated residual block around it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

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
    batch, _, length = x.shape
    out_channels, size, frames = kernel.shape[2:]
    if size % 2 == 0:
        raise ValueError(f"The kernel size must be odd, got {size}.")
    if length != frames * hop_size:
        raise ValueError(f"{frames} frames of {hop_size} samples need {frames * hop_size} samples, got {length}.")
    if kernel.shape[:2] != x.shape[:2] or bias.shape != (batch, out_channels, frames):
        raise ValueError(
            f"The shapes of x {tuple(x.shape)}, kernel {tuple(kernel.shape)} and bias {tuple(bias.shape)} do not fit."
        )
    return _by_frame(x, kernel, bias, hop_size).transpose(1, 2).reshape(batch, out_channels, length)


def _by_frame(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
    """Return the location-variable convolution frame by frame, (batch, frames, out_channels, hop_size), contiguous.

    Nothing is copied of a kernel that lies in memory as (batch, frames, out_channels, in_channels, K).
    """
    batch, channels, length = x.shape
    out_channels, size, frames = kernel.shape[2:]
    padded = F.pad(x, (size // 2, size // 2))
    weights = kernel.permute(0, 4, 2, 1, 3)
    if _grouped_is_best(x):
        # A group a frame, on the frame's samples and their neighbours: no K-fold copy of x.
        windows = padded.unfold(2, hop_size + size - 1, hop_size).transpose(1, 2).reshape(1, -1, hop_size + size - 1)
        weights = weights.reshape(batch * frames * out_channels, channels, size)
        y = F.conv1d(windows, weights, bias.transpose(1, 2).reshape(-1), groups=batch * frames)
    else:
        # A matrix product a frame: (out, in·K) · (in·K, hop). The K shifted copies of x are its columns.
        taps = torch.stack([padded[..., tap : tap + length] for tap in range(size)], dim=2)
        columns = taps.view(batch, channels * size, frames, hop_size).transpose(1, 2).flatten(0, 1)
        weights = weights.reshape(batch * frames, out_channels, channels * size)
        y = torch.baddbmm(bias.transpose(1, 2).reshape(batch * frames, out_channels, 1), weights, columns)
    return y.view(batch, frames, out_channels, hop_size)


def _grouped_is_best(x: Tensor) -> bool:
    # Measured on a CPU: oneDNN's grouped convolution is 1.1 to 1.6 times as fast as the matrix products. It knows
    # no float64. A compiled graph would hold for one number of groups, which here is one length.
    if torch.compiler.is_compiling():
        return False
    known = x.device.type == "cpu" and x.dtype in (torch.float32, torch.bfloat16)
    return bool(known and torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled)


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
        self._frozen: tuple[tuple[int, ...], Tensor, Tensor] | None = None

    def forward(self, mel: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Map a mel (batch, n_mels, frames) to each layer's kernels and biases, one layer after the other.

        Yields:
            Kernels (batch, channels, 2 · channels, K, frames), which lie in memory as the convolution takes them:
            (batch, frames, 2 · channels, channels, K); and biases (batch, 2 · channels, frames).
        """
        x = F.leaky_relu(self.input_conv(mel), self.leaky_slope, inplace=True)
        for block in self.resblocks:
            x = block(x)
        biases = self.bias_conv(x).unflatten(1, self.bias_shape)
        # Channels-last gives frames first in memory. Layer by layer only one layer's kernels are there at a time.
        x = x.transpose(1, 2).unsqueeze(1).contiguous().permute(0, 3, 1, 2)
        fan_in, fan_out, size = self.kernel_shape[1:]
        padding = (0, self.kernel_conv.kernel_size[0] // 2)
        for weight, bias, layer_bias in zip(*self._by_layer(), biases.unbind(1), strict=True):
            if torch.compiler.is_compiling():  # inductor refuses a bias that is a view
                y = F.conv2d(x, weight, padding=padding) + bias.unflatten(0, (-1, 1, 1))
            else:
                y = F.conv2d(x, weight, bias, padding=padding)
            yield y.squeeze(2).unflatten(1, (fan_out, fan_in, size)).permute(0, 2, 1, 3, 4), layer_bias

    def _by_layer(self) -> tuple[Tensor, Tensor]:
        """Return `kernel_conv`'s weight and bias, (layers, rows, hidden, 1, k) and (layers, rows), output-major."""
        weight, bias = self.kernel_conv.weight, self.kernel_conv.bias
        assert bias is not None
        trained = not isinstance(weight, nn.Parameter) or weight.requires_grad or bias.requires_grad  # or weight-normed
        if torch.compiler.is_compiling() or trained or weight.is_inference():
            return self._laid_out(weight), self._laid_out(bias)
        # Frozen for inference: laid out once. In-place changes, such as loading weights, raise the version; those of
        # a fused optimizer do not.
        key = (weight.data_ptr(), weight._version, bias.data_ptr(), bias._version)
        if self._frozen is None or self._frozen[0] != key:
            self._frozen = key, self._laid_out(weight), self._laid_out(bias)
        return self._frozen[1:]

    def _laid_out(self, rows: Tensor) -> Tensor:
        by_layer = rows.unflatten(0, self.kernel_shape).transpose(1, 2)
        if rows.dim() == 1:
            return by_layer.flatten(1)
        return by_layer.movedim(4, 5).flatten(1, 3).unsqueeze(2).permute(0, 1, 4, 2, 3)  # channels-last as the input

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self._frozen = None  # another device or precision: memory is another's by then
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_frozen": None}


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
        """Map (batch, channels, samples) to the same shape; the other arguments are the convolution's own.

        Where no gradient is recorded, single and double precision overwrite `x` and return it.
        """
        y = F.leaky_relu(self.conv(F.leaky_relu(x, self.leaky_slope)), self.leaky_slope, inplace=True)
        y = _by_frame(y, kernel, bias, hop_size).transpose(1, 2)
        gate, value = y.chunk(2, dim=1)
        if torch.is_grad_enabled() or not x.dtype == y.dtype in (torch.float32, torch.float64):
            return x + (torch.sigmoid(gate) * torch.tanh(value)).reshape(x.shape)
        # tanh v = 2 σ(2v) − 1, and the CPU's sigmoid is ten times as fast as its tanh.
        value.mul_(2)
        y.sigmoid_()
        by_frame = x.unflatten(2, gate.shape[2:])
        by_frame.sub_(gate).addcmul_(gate, value, value=2)
        return x


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
        for layer, (kernel, bias) in zip(self.resblocks, self.kernel_predictor(mel), strict=True):
            x = layer(x, kernel, bias, self.hop_size)
        return x
