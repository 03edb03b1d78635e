"""Location-variable convolution: the audio of each mel frame is convolved with a kernel of its own."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable


def location_variable_convolution(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
    """Convolve every ``hop_size`` samples of ``x`` with the kernel of their frame (LVCNet, arXiv 2102.10815, §2).

    The whole sequence is zero-padded by (K − 1) / 2 on each side, so a kernel also sees samples of the frames beside.

    Args:
        x: the sequence, (batch, in_channels, frames · hop_size).
        kernel: one kernel per frame, (batch, in_channels, out_channels, K, frames), K odd.
        bias: one bias per frame, (batch, out_channels, frames).
        hop_size: samples per frame.

    Returns:
        (batch, out_channels, frames · hop_size).

    Raises:
        ValueError: if K is even, or the shapes do not fit together.
    """
    batch, _, length = x.shape
    out_channels, size, frames = kernel.shape[2:]
    if size % 2 == 0:
        raise ValueError(f"the kernel size must be odd, got {size}")
    if length != frames * hop_size:
        raise ValueError(f"{frames} frames of {hop_size} samples need {frames * hop_size} samples, got {length}")
    if kernel.shape[:2] != x.shape[:2] or bias.shape != (batch, out_channels, frames):
        raise ValueError(
            f"the shapes of x {tuple(x.shape)}, kernel {tuple(kernel.shape)} and bias {tuple(bias.shape)} do not fit"
        )
    return by_frame(x, kernel, bias, hop_size).transpose(1, 2).reshape(batch, out_channels, length)


def by_frame(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
    """Return the location-variable convolution frame by frame, (batch, frames, out_channels, hop_size), contiguous.

    A kernel whose memory layout is (batch, frames, out_channels, in_channels, K) is not copied.
    """
    kind = x.device.type
    if kind != "meta" and torch.is_autocast_enabled(kind) and x.dtype != torch.float64:
        x, kernel, bias = (tensor.to(torch.get_autocast_dtype(kind)) for tensor in (x, kernel, bias))
    kernel, bias = kernel.permute(0, 4, 2, 1, 3), bias.transpose(1, 2)
    if torch.jit.is_tracing() or not torch.is_grad_enabled():  # exporters cannot handle a Function
        return _convolved(x, kernel, bias, hop_size)
    y: Tensor = _ByFrame.apply(x, kernel, bias, hop_size)
    return y


def _convolved(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
    """Convolve by kernels (batch, frames, out, in, K) and biases (batch, frames, out)."""
    batch, frames, out, fan_in, size = kernel.shape
    windows = _windows(x, size, hop_size)
    if grouped_is_best(x):  # one group per frame, on the frame's samples and their neighbours
        groups = batch * frames
        y = F.conv1d(_grouped(windows), kernel.reshape(-1, fan_in, size), bias.reshape(-1), groups=groups)
    else:  # one matrix product per frame: (out, in·K) · (in·K, hop)
        y = torch.baddbmm(bias.reshape(-1, out, 1), kernel.reshape(-1, out, fan_in * size), _columns(windows, size))
    return y.view(batch, frames, out, hop_size)


class _ByFrame(Function):
    """``_convolved`` with its own backward, which is once differentiable.

    The K-fold copies of ``x`` are made again in the backward, and their gradients added in a few strided slices.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.hop_size = hop_size
        return _convolved(x, kernel, bias, hop_size)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, kernel = ctx.saved_tensors
        batch, frames, out, fan_in, size = kernel.shape
        hop_size = ctx.hop_size
        windows = _windows(x, size, hop_size)
        if grouped_is_best(x):
            by_window, by_kernel, by_bias = torch.ops.aten.convolution_backward(
                grad.reshape(1, -1, hop_size),
                _grouped(windows),
                kernel.reshape(-1, fan_in, size),
                [batch * frames * out],
                *([1], [0], [1], False, [0], batch * frames, [True] * 3),  # stride 1, no padding, one group per frame
            )
            pieces = by_window.view(batch, frames, fan_in, -1).split(hop_size, dim=3)
            starts = range(0, hop_size + size - 1, hop_size)
        else:
            grad = grad.reshape(-1, out, hop_size)
            columns = _columns(windows, size)
            by_kernel, by_bias = grad @ columns.transpose(1, 2), grad.sum(2)
            torch.bmm(kernel.reshape(-1, out, fan_in * size).transpose(1, 2), grad, out=columns)
            pieces = columns.view(batch, frames, fan_in, size, hop_size).unbind(3)
            starts = range(size)
        padded = x.new_zeros(batch, fan_in, frames * hop_size + size - 1)
        for start, piece in zip(starts, pieces, strict=True):
            slots = padded[..., start:].unfold(2, piece.shape[3], hop_size)[:, :, :frames]
            slots.add_(piece.transpose(1, 2))
        by_x = padded[..., size // 2 : size // 2 + frames * hop_size]
        return by_x, by_kernel.view(kernel.shape), by_bias.view(batch, frames, out), None


def _windows(x: Tensor, size: int, hop_size: int) -> Tensor:
    """Return each frame's samples with their neighbours, a view (batch, frames, channels, hop_size + size − 1)."""
    return F.pad(x, (size // 2, size // 2)).unfold(2, hop_size + size - 1, hop_size).transpose(1, 2)


def _grouped(windows: Tensor) -> Tensor:
    return windows.reshape(1, -1, windows.shape[3])


def _columns(windows: Tensor, size: int) -> Tensor:
    shifted = windows.unfold(3, windows.shape[3] - size + 1, 1)
    # With one channel in one example, reshape would return an overlapping view, which must not be written to.
    return shifted.reshape(-1, shifted.shape[2] * size, shifted.shape[4]).contiguous()


def grouped_is_best(x: Tensor) -> bool:
    """Whether oneDNN's grouped convolution, one group per frame, is faster than a matrix product per frame.

    Measured on a CPU: in single precision it is up to 1.6 times as fast; in bfloat16 the matrix products are 1.2 to 1.6
    times as fast. A compiled graph is for one number of groups, which would be one length of audio.
    """
    if torch.compiler.is_compiling():
        return False
    one_dnn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return bool(x.device.type == "cpu" and x.dtype == torch.float32 and one_dnn)
