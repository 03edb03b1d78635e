"""Padding and cutting of a signal's ends; the gradient of the padding is the same in every run, on a GPU too."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def pad_ends(x: Tensor, left: int, right: int, mode: Literal["reflect", "replicate"] = "reflect") -> Tensor:
    """Return ``torch.nn.functional.pad(x, (left, right), mode)``, along the last axis, bit for bit.

    CUDA's backward of that adds in an order which differs from run to run, and raises an error under
    ``torch.use_deterministic_algorithms``. Where an accelerator is to compute a gradient, the result is therefore
    joined from pieces of ``x``, whose gradients are added in a fixed order.

    Args:
        x: (batch, channels, samples) or (batch, samples).
        left: samples to add in front.
        right: samples to add behind.
        mode: "reflect" mirrors at the first and the last sample, "replicate" repeats them.

    Raises:
        RuntimeError: to reflect ``left`` or ``right`` samples, there must be more.
    """
    possible = mode == "replicate" or max(left, right) < x.shape[-1]  # else the error is torch's
    if x.device.type != "cpu" and x.requires_grad and torch.is_grad_enabled() and possible:
        return _joined(x, left, right, mode)
    return F.pad(x, (left, right), mode)


def _joined(x: Tensor, left: int, right: int, mode: str) -> Tensor:
    samples = x.shape[-1]
    if mode == "replicate":
        ends = x[..., :1].expand(*x.shape[:-1], left), x[..., -1:].expand(*x.shape[:-1], right)
        return torch.cat([ends[0], x, ends[1]], -1)
    if samples < left + right + 2:
        ends = x[..., 1 : left + 1].flip(-1), x[..., samples - right - 1 : -1].flip(-1)
        return torch.cat([ends[0], x, ends[1]], -1)
    # Split first: the backward of a split joins once, where that of each slice would fill a tensor of zeros.
    first, middle, last = x.split([left + 1, samples - left - right - 2, right + 1], -1)
    return torch.cat([first[..., 1:].flip(-1), first, middle, last, last[..., :-1].flip(-1)], -1)


def cut_ends(x: Tensor, left: int, right: int, dim: int = -1) -> Tensor:
    """Return ``x`` without its first ``left`` and its last ``right`` values along ``dim``; the memory is shared."""
    return x.narrow(dim, left, x.shape[dim] - left - right) if left or right else x
