"""UnivNet's gated residual block around the location-variable convolution (arXiv 2106.07889, §2.1)."""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from univnet.models.kernel_predictor import KernelPredictor
from univnet.models.lvc import by_frame


class LVCLayer(nn.Module):
    """Dilated convolution, location-variable convolution, gate, skip (UnivNet, arXiv 2106.07889, §2.1).

    Args:
        channels: number of channels.
        kernel_size: size of the dilated convolution, odd.
        dilation: dilation of that convolution.
        leaky_slope: negative slope of the leaky ReLUs.
    """

    def __init__(self, channels: int, kernel_size: int, dilation: int, leaky_slope: float) -> None:
        super().__init__()
        padding = dilation * (kernel_size - 1) // 2
        self.conv = nn.Conv1d(channels, channels, kernel_size, dilation=dilation, padding=padding)
        self.leaky_slope = leaky_slope

    def forward(self, x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
        """Map x (batch, channels, samples) to the same shape, by ``location_variable_convolution``'s other arguments.

        Without autograd ``x`` may be overwritten.
        """
        y = F.leaky_relu(self.conv(F.leaky_relu(x, self.leaky_slope)), self.leaky_slope, inplace=True)
        y = by_frame(y, kernel, bias, hop_size)
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            gate, value = y.transpose(1, 2).chunk(2, dim=1)
            return x + (torch.sigmoid(gate) * torch.tanh(value)).reshape(x.shape)
        if torch.is_grad_enabled() or x.dtype != y.dtype:
            gated: Tensor = _Gate.apply(x, y)
            return gated
        gate, value = _activated(y)
        x.unflatten(2, gate.shape[2:]).addcmul_(gate, value)
        return x


class _Gate(Function):
    """Returns x + σ(gate) · tanh(value) of x (batch, channels, samples) and y (batch, frames, gate and value, hop).

    Overwrites y with σ and tanh, which are all that the backward needs; it is once differentiable.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        gate, value = _activated(y)
        ctx.save_for_backward(y.detach())
        return torch.addcmul(x.unflatten(2, gate.shape[2:]), gate, value).flatten(2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        (y,) = ctx.saved_tensors
        by_y = torch.empty_like(y)
        gate, value, by_gate, by_value = (half for t in (y, by_y) for half in t.transpose(1, 2).chunk(2, dim=1))
        by_frame = grad.unflatten(2, gate.shape[2:])
        torch.mul(by_frame, gate, out=by_value)
        torch.ops.aten.tanh_backward(by_value, value, grad_input=by_value)
        torch.mul(by_frame, value, out=by_gate)
        torch.ops.aten.sigmoid_backward(by_gate, gate, grad_input=by_gate)
        return grad, by_y


def _activated(y: Tensor) -> tuple[Tensor, Tensor]:
    """Overwrite y with σ(gate) and tanh(value); return both, (batch, channels, frames, hop) each."""
    gate, value = y.transpose(1, 2).chunk(2, dim=1)
    if y.device.type != "cpu" or y.dtype not in (torch.float32, torch.float64):
        return gate.sigmoid_(), value.tanh_()
    value.mul_(2)
    y.sigmoid_()
    # tanh v = 2 σ(2v) − 1, and on the CPU sigmoid is ten times as fast as tanh.
    return gate, torch.add(y.new_full((), -1), value, alpha=2, out=value)


class LVCBlock(nn.Module):
    """Upsample by ``stride``, then run one ``LVCLayer`` per dilation (UnivNet, arXiv 2106.07889, §2.1).

    Args:
        kernel_predictor: predicts the kernels, for one layer per dilation.
        channels: number of channels.
        stride: upsampling factor, at least 2.
        hop_size: samples per mel frame after the upsampling.
        dilations: dilation of each layer.
        kernel_size: size of the dilated convolutions, odd.
        leaky_slope: negative slope of the leaky ReLUs.
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

    def forward(self, x: Tensor, mel: Tensor, left: int = 0, right: int = 0) -> Tensor:
        """Upsample x (batch, channels, frames · hop_size / stride), controlled by mel.

        The mel is (batch, n_mels, left + frames + right): x lacks its first ``left`` and last ``right`` frames, which
        are context of the kernels alone.

        Returns:
            (batch, channels, frames · hop_size).
        """
        x = self.convt_pre(F.leaky_relu(x, self.leaky_slope))
        for layer, (kernel, bias) in zip(self.resblocks, self.kernel_predictor(mel, left, right), strict=True):
            x = layer(x, kernel, bias, self.hop_size)
        return x
