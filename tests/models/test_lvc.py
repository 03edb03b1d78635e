import pytest
import torch
from transformers.models.univnet.modeling_univnet import UnivNetLvcResidualBlock

from univnet.models.lvc import location_variable_convolution


def inputs(batch, fan_in, fan_out, size, frames, hop):
    x = torch.randn(batch, fan_in, frames * hop, dtype=torch.float64)
    kernel = torch.randn(batch, fan_in, fan_out, size, frames, dtype=torch.float64)
    bias = torch.randn(batch, fan_out, frames, dtype=torch.float64)
    return [tensor.requires_grad_() for tensor in (x, kernel, bias)]


@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(
    ("batch", "fan_in", "fan_out", "frames", "hop"), [(2, 3, 4, 5, 8), (1, 4, 2, 1, 7), (3, 1, 1, 6, 5)]
)
def test_equals_transformers_with_its_gradients(batch, fan_in, fan_out, size, frames, hop):
    torch.manual_seed(0)
    tensors = inputs(batch, fan_in, fan_out, size, frames, hop)
    ours = location_variable_convolution(*tensors, hop)
    theirs = UnivNetLvcResidualBlock.location_variable_convolution(None, *tensors, dilation=1, hop_size=hop)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-10)
    weight = torch.randn_like(ours)
    for a, b in zip(
        torch.autograd.grad(ours, tensors, weight), torch.autograd.grad(theirs, tensors, weight), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize(("size", "frames", "hop"), [(1, 3, 4), (3, 1, 8), (3, 5, 1), (5, 4, 2), (7, 6, 3)])
@pytest.mark.parametrize("laid_out", [False, True])
def test_single_precision_is_double_precision_rounded(size, frames, hop, laid_out):
    torch.manual_seed(0)
    exact = inputs(2, 3, 4, size, frames, hop)
    single = [tensor.detach().float().requires_grad_() for tensor in exact]
    kernel = single[1]
    if laid_out:  # as the kernel predictor lays it out; the mathematics must not care
        kernel = kernel.permute(0, 4, 2, 1, 3).contiguous().permute(0, 3, 2, 4, 1)
    ours = location_variable_convolution(single[0], kernel, single[2], hop)
    expected = location_variable_convolution(*exact, hop)
    torch.testing.assert_close(ours, expected.float(), rtol=0, atol=2e-5)
    weight = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(ours, single, weight.float()), torch.autograd.grad(expected, exact, weight), strict=True
    ):
        torch.testing.assert_close(a, b.float(), rtol=0, atol=2e-4)


@pytest.mark.parametrize(("size", "hop"), [(5, 1), (7, 2)])
def test_kernels_wider_than_a_frame_see_several_neighbours(size, hop):
    torch.manual_seed(0)
    frames, half = 6, size // 2
    x, kernel, bias = inputs(1, 2, 3, size, frames, hop)
    y = location_variable_convolution(x, kernel, bias, hop)
    padded = torch.nn.functional.pad(x, (half, half))
    for t in range(frames * hop):
        expected = (
            torch.einsum("ik,iok->o", padded[0, :, t : t + size], kernel[0, ..., t // hop]) + bias[0, :, t // hop]
        )
        torch.testing.assert_close(y[0, :, t], expected, rtol=0, atol=1e-10)


def test_one_kernel_for_all_frames_is_an_ordinary_convolution():
    x, kernel, bias = inputs(1, 3, 4, 3, 1, 8)
    x = torch.randn(1, 3, 40, dtype=torch.float64)
    y = location_variable_convolution(x, kernel.expand(-1, -1, -1, -1, 5), bias.expand(-1, -1, 5), 8)
    expected = torch.nn.functional.conv1d(x, kernel[0, ..., 0].transpose(0, 1), bias[0, :, 0], padding=1)
    torch.testing.assert_close(y, expected)


def test_what_does_not_fit_is_named():
    x, kernel, bias = inputs(2, 3, 4, 3, 5, 8)
    with pytest.raises(ValueError, match="need 40 samples, got 39"):
        location_variable_convolution(x[..., 1:], kernel, bias, 8)
    with pytest.raises(ValueError, match="must be odd, got 2"):
        location_variable_convolution(x, kernel[..., :2, :], bias, 8)
    with pytest.raises(ValueError, match="do not fit"):
        location_variable_convolution(x[:, :2], kernel, bias, 8)
    with pytest.raises(ValueError, match="do not fit"):
        location_variable_convolution(x, kernel, bias[:, :3], 8)
