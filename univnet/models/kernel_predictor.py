"""The kernel predictor: it turns the mel into the kernels of the location-variable convolution, frame by frame."""

from collections.abc import Callable, Iterator
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from univnet.common.padding import cut_ends
from univnet.models.lvc import grouped_is_best

Tensors = tuple[Tensor, ...]


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
        self._frozen: tuple[tuple[Any, ...], Tensors, Tensors] | None = None

    def forward(self, mel: Tensor, left: int = 0, right: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Map a mel (batch, n_mels, left + frames + right) to each layer's kernels and biases, one after the other.

        The first ``left`` and the last ``right`` frames are context alone: nothing is predicted for them.

        Yields:
            Kernels (batch, channels, 2 · channels, K, frames), in the memory layout that the convolution does not copy:
            (batch, frames, 2 · channels, channels, K); and biases (batch, 2 · channels, frames).
        """
        x = F.leaky_relu(self.input_conv(mel), self.leaky_slope, inplace=True)
        for block in self.resblocks:
            x = block(x)
        biases = cut_ends(self.bias_conv(x), left, right).unflatten(1, self.bias_shape)
        # Frames come first in memory. Yielding layer by layer holds the kernels of only one layer at a time.
        fan_in, fan_out, size = self.kernel_shape[1:]
        products, width = not grouped_is_best(x), self.kernel_conv.kernel_size[0]
        x = cut_ends(F.pad(x.transpose(1, 2), (0, 0, width // 2, width // 2)), left, right, dim=1)
        x = x.unfold(1, width, 1).flatten(2) if products else x.unsqueeze(1).permute(0, 3, 1, 2)  # channels last
        packed = not products and not (x.requires_grad and torch.is_grad_enabled()) and _can_pack()
        for weight, bias, layer_bias in zip(*self._by_layer(packed), biases.unbind(1), strict=True):
            if products:
                y = F.linear(x, weight.flatten(1), bias)
            else:
                y = _convolved(x, weight, bias).squeeze(2).transpose(1, 2)
            yield y.unflatten(2, (fan_out, fan_in, size)).permute(0, 3, 2, 4, 1), layer_bias

    def _by_layer(self, packed: bool) -> tuple[Tensors, Tensors]:
        """Return ``kernel_conv``'s weights and biases by layer, output channels first: (rows, hidden, k) and (rows,).

        With ``packed``, the weights of a frozen predictor are as oneDNN wants them.
        """
        weight, bias = self.kernel_conv.weight, self.kernel_conv.bias
        assert bias is not None
        trained = not isinstance(weight, nn.Parameter) or weight.requires_grad or bias.requires_grad  # or weight-normed
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return self._reordered(weight), self._reordered(bias)
        if trained or weight.is_inference():
            self._frozen = None  # a fused optimizer does not raise the version
            return self._reordered(weight), self._reordered(bias)
        # Frozen for inference: reordered once. In-place changes, such as loading weights, raise the version.
        # Other weights could come to lie at the same address, so their memory is told by a reference that keeps none.
        storages = (StorageWeakRef(each.untyped_storage()) for each in (weight, bias))
        key = (*storages, weight.data_ptr(), weight._version, bias.data_ptr(), bias._version, packed)
        if self._frozen is None or self._frozen[0] != key:
            with torch.inference_mode(False), torch.no_grad():  # what inference mode makes, autograd refuses later
                rows = self._reordered(weight)
                self._frozen = key, tuple(map(_packed, rows)) if packed else rows, self._reordered(bias)
        return self._frozen[1:]

    def _reordered(self, rows: Tensor) -> Tensors:
        return rows.unflatten(0, self.kernel_shape).transpose(1, 2).flatten(1, 3).unbind()

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


# Padding, stride, dilation and groups of the convolution along the frames.
_GEOMETRY: tuple[list[int], list[int], list[int], int] = ([0, 0], [1, 1], [1, 1], 1)


def _can_pack() -> bool:
    return hasattr(torch.ops.mkldnn, "_convolution_pointwise")


def _packed(weight: Tensor) -> Tensor:
    """Return a weight (rows, hidden, k) in oneDNN's own layout, which it would make anew for each convolution.

    These are the operations of torch's own compiler. torch gives a short convolution of one example to another library,
    which is a third as fast (measured on an AMD EPYC).
    """
    return torch._C._nn.mkldnn_reorder_conv2d_weight(weight.unsqueeze(2).to_mkldnn(), *_GEOMETRY)


def _convolved(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolve x (batch, hidden, 1, frames + k − 1) by a packed weight or a plain one: (batch, rows, 1, frames)."""
    if weight.is_mkldnn:
        return torch.ops.mkldnn._convolution_pointwise(x, weight, bias, *_GEOMETRY, "none", [], "")
    return F.conv2d(x, weight.unsqueeze(2), bias)
