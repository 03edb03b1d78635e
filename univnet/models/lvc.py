"""Location-variable convolution: the audio of each mel frame is convolved with a kernel predicted for that frame.

Sources: LVCNet (arXiv 2102.10815, §2) for the operation and the kernel predictor; UnivNet (arXiv 2106.07889, §2.1)
for the gated residual block around it.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable
from torch.multiprocessing.reductions import StorageWeakRef


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
    return _by_frame(x, kernel, bias, hop_size).transpose(1, 2).reshape(batch, out_channels, length)


def _by_frame(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
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
    if _grouped_is_best(x):  # one group per frame, on the frame's samples and their neighbours
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
        if _grouped_is_best(x):
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


def _grouped_is_best(x: Tensor) -> bool:
    # Measured on a CPU: in single precision oneDNN's grouped convolution is up to 1.6 times as fast as the matrix
    # products; in bfloat16 the matrix products are 1.2 to 1.6 times as fast. A compiled graph is for one number of
    # groups, which would be one length of audio.
    if torch.compiler.is_compiling():
        return False
    one_dnn = torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled
    return bool(x.device.type == "cpu" and x.dtype == torch.float32 and one_dnn)


class KernelPredictor(nn.Module):
    """Predict the kernels and biases of an ``LVCBlock``'s layers from the mel (LVCNet, arXiv 2102.10815, §2).

    Args:
        n_mels: number of mel bands.
        channels: input channels of the predicted kernels; they have twice as many output channels, for the gate.
        layers: number of layers to predict for.
        kernel_size: K of the predicted kernels, odd.
        hidden_channels: channels of the predictor.
        blocks: number of residual blocks of the predictor.
        hidden_kernel_size: kernel size of the predictor's own convolutions (the first has 5), odd.
        dropout: dropout probability at the start of each residual block.
        leaky_slope: negative slope of the leaky ReLUs.
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
        self._frozen: tuple[tuple[Any, ...], Tensor, Tensor] | None = None

    def forward(self, mel: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Map a mel (batch, n_mels, frames) to each layer's kernels and biases, one layer after the other.

        Yields:
            Kernels (batch, channels, 2 · channels, K, frames), in the memory layout that the convolution does not copy:
            (batch, frames, 2 · channels, channels, K); and biases (batch, 2 · channels, frames).
        """
        x = F.leaky_relu(self.input_conv(mel), self.leaky_slope, inplace=True)
        for block in self.resblocks:
            x = block(x)
        biases = self.bias_conv(x).unflatten(1, self.bias_shape)
        # Frames come first in memory. Yielding layer by layer holds the kernels of only one layer at a time.
        fan_in, fan_out, size = self.kernel_shape[1:]
        products, width = not _grouped_is_best(x), self.kernel_conv.kernel_size[0]
        x = x.transpose(1, 2)
        if products:
            x = F.pad(x, (0, 0, width // 2, width // 2)).unfold(1, width, 1).flatten(2)
        else:
            x = x.unsqueeze(1).contiguous().permute(0, 3, 1, 2)  # channels-last
        for weight, bias, layer_bias in zip(*self._by_layer(products), biases.unbind(1), strict=True):
            if products:
                y = F.linear(x, weight.flatten(1), bias)
            else:
                y = F.conv2d(x, weight.unsqueeze(2), bias, padding=(0, width // 2)).squeeze(2).transpose(1, 2)
            yield y.unflatten(2, (fan_out, fan_in, size)).permute(0, 3, 2, 4, 1), layer_bias

    def _by_layer(self, products: bool) -> tuple[Tensor, Tensor]:
        """Return ``kernel_conv``'s weight (layers, rows, hidden, k) and bias (layers, rows), output channels first."""
        weight, bias = self.kernel_conv.weight, self.kernel_conv.bias
        assert bias is not None
        trained = not isinstance(weight, nn.Parameter) or weight.requires_grad or bias.requires_grad  # or weight-normed
        if torch.compiler.is_compiling():
            return self._reordered(weight), self._reordered(bias)
        if trained or weight.is_inference():
            self._frozen = None  # a fused optimizer does not raise the version
            return self._reordered(weight), self._reordered(bias)
        # Frozen for inference: reordered once. In-place changes, such as loading weights, raise the version.
        # Other weights could come to lie at the same address, so their memory is told by a reference that keeps none.
        storages = (StorageWeakRef(each.untyped_storage()) for each in (weight, bias))
        key = (*storages, weight.data_ptr(), weight._version, bias.data_ptr(), bias._version, products)
        if self._frozen is None or self._frozen[0] != key:
            rows = self._reordered(weight)
            if not products:  # channels-last: in a training step this would cost as much as it gains
                rows = rows.transpose(2, 3).contiguous().transpose(2, 3)
            self._frozen = key, rows, self._reordered(bias)
        return self._frozen[1:]

    def _reordered(self, rows: Tensor) -> Tensor:
        return rows.unflatten(0, self.kernel_shape).transpose(1, 2).flatten(1, 3)

    def _apply(self, fn: Callable, recurse: bool = True) -> Self:
        self._frozen = None  # another device or precision: the key could match other weights by then
        return super()._apply(fn, recurse)

    def __getstate__(self) -> dict[str, Any]:
        return super().__getstate__() | {"_frozen": None}


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
        y = _by_frame(y, kernel, bias, hop_size)
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

    def forward(self, x: Tensor, mel: Tensor) -> Tensor:
        """Upsample x (batch, channels, frames · hop_size / stride), controlled by mel (batch, n_mels, frames).

        Returns:
            (batch, channels, frames · hop_size).
        """
        x = self.convt_pre(F.leaky_relu(x, self.leaky_slope))
        for layer, (kernel, bias) in zip(self.resblocks, self.kernel_predictor(mel), strict=True):
            x = layer(x, kernel, bias, self.hop_size)
        return x
