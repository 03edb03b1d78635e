import pytest
import torch
from transformers.models.univnet.modeling_univnet import UnivNetLvcResidualBlock

from univnet.models import lvc
from univnet.models.lvc import location_variable_convolution
from univnet.models.lvc_block import LVCLayer


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


def by_formula(x, kernel, bias, hop):
    """The convolution tap by tap, each sample with the kernel of its frame."""
    half = kernel.shape[3] // 2
    padded = torch.nn.functional.pad(x, (half, half))
    y = bias.repeat_interleave(hop, 2)
    for tap in range(kernel.shape[3]):
        by_sample = kernel[:, :, :, tap].repeat_interleave(hop, 3)
        y = y + torch.einsum("bit,biot->bot", padded[..., tap : tap + x.shape[2]], by_sample)
    return y


@pytest.mark.parametrize("grouped", [False, True])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize(("frames", "hop"), [(1, 1), (1, 6), (4, 1), (5, 2), (3, 8)])
@pytest.mark.parametrize(("batch", "fan_in"), [(2, 3), (1, 1)])
def test_both_ways_have_the_gradients_of_the_formula(monkeypatch, grouped, size, frames, hop, batch, fan_in):
    monkeypatch.setattr(lvc, "grouped_is_best", lambda x: grouped)
    torch.manual_seed(0)
    tensors = inputs(batch, fan_in, 4, size, frames, hop)
    ours, expected = location_variable_convolution(*tensors, hop), by_formula(*tensors, hop)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)
    weight = torch.randn_like(expected)
    for a, b in zip(
        torch.autograd.grad(ours, tensors, weight), torch.autograd.grad(expected, tensors, weight), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


@pytest.mark.parametrize("grouped", [False, True])
def test_the_backward_is_the_derivative(monkeypatch, grouped):
    monkeypatch.setattr(lvc, "grouped_is_best", lambda x: grouped)
    torch.manual_seed(0)
    tensors = inputs(2, 2, 4, 3, 3, 4)
    assert torch.autograd.gradcheck(lambda *t: location_variable_convolution(*t, 4), tensors)
    layer = LVCLayer(2, 3, 3, 0.2).double()
    assert torch.autograd.gradcheck(lambda *t: layer(*t, 4), tensors)


def test_gradients_are_not_derived_twice():
    tensors = inputs(1, 2, 3, 3, 2, 4)
    [grad] = torch.autograd.grad(
        location_variable_convolution(*tensors, 4).square().sum(), tensors[0], create_graph=True
    )
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_some_inputs_may_be_constant():
    x, kernel, bias = inputs(2, 3, 4, 3, 5, 2)
    for trained in (x, kernel, bias):
        constant = [tensor if tensor is trained else tensor.detach() for tensor in (x, kernel, bias)]
        weight = torch.randn(2, 4, 10, dtype=torch.float64)
        [ours] = torch.autograd.grad(location_variable_convolution(*constant, 2), trained, weight)
        [expected] = torch.autograd.grad(by_formula(*constant, 2), trained, weight)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-10)


def test_bfloat16_autocast_has_nearly_the_gradients_of_single_precision():
    torch.manual_seed(0)
    tensors = [tensor.detach().float().requires_grad_() for tensor in inputs(2, 4, 8, 3, 5, 8)]
    weight, layer = torch.randn(2, 8, 40), LVCLayer(4, 3, 9, 0.2)
    expected = torch.autograd.grad(location_variable_convolution(*tensors, 8), tensors, weight)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y, of_layer = location_variable_convolution(*tensors, 8), layer(*tensors, 8)
    assert y.dtype == torch.bfloat16
    for a, b in zip(torch.autograd.grad(y, tensors, weight.bfloat16()), expected, strict=True):
        assert (a - b).norm() < 0.01 * b.norm()
    of_layer.sum().backward()
    assert all(parameter.grad.isfinite().all() for parameter in [*tensors, *layer.parameters()])


def test_the_gate_is_a_sigmoid_times_a_tanh():
    torch.manual_seed(0)
    layer = LVCLayer(2, 3, 1, 0.2).double()
    x, kernel, bias = inputs(2, 2, 4, 3, 3, 4)
    rectified = torch.nn.functional.leaky_relu(layer.conv(torch.nn.functional.leaky_relu(x, 0.2)), 0.2)
    gate, value = by_formula(rectified, kernel, bias, 4).chunk(2, dim=1)
    expected = x + torch.sigmoid(gate) * torch.tanh(value)
    torch.testing.assert_close(layer(x, kernel, bias, 4), expected, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(layer(x.detach().clone(), kernel, bias, 4), expected.detach(), rtol=0, atol=1e-12)


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
