"""``pad_ends`` is torch's padding, but for operations whose gradient CUDA adds in no fixed order."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from univnet.common import padding
from univnet.common.padding import pad_ends

CASES = [("reflect", 12, 3, 3), ("reflect", 40, 0, 5), ("reflect", 4, 3, 3), ("reflect", 3, 2, 0), ("reflect", 9, 0, 0)]
CASES += [("replicate", 1, 3, 3), ("replicate", 2, 3, 1)]


@pytest.mark.parametrize(("mode", "samples", "left", "right"), CASES)
@pytest.mark.parametrize("dims", [2, 3])
def test_pieces_give_torchs_values_and_gradients(mode: str, samples: int, left: int, right: int, dims: int) -> None:
    x = torch.randn((2, 3, samples)[3 - dims :], requires_grad=True)
    joined, theirs = padding._joined(x, left, right, mode), F.pad(x, (left, right), mode)
    assert torch.equal(joined, theirs)
    cotangent = torch.randn_like(theirs)
    ours, expected = (torch.autograd.grad(y, x, cotangent)[0] for y in (joined, theirs))
    if samples >= left + right + 2:  # no sample is mirrored twice, so no sum has another order
        assert torch.equal(ours, expected)
    torch.testing.assert_close(ours, expected)


def test_the_cpu_has_torchs_own_operation() -> None:
    x = torch.randn(2, 3, 40, requires_grad=True)
    assert "ReflectionPad" in type(pad_ends(x, 3, 3).grad_fn).__name__


class Operations(TorchDispatchMode):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_a_gpu_has_it_only_without_gradient(mode: str, request: pytest.FixtureRequest) -> None:
    request.addfinalizer(partial(torch.use_deterministic_algorithms, torch.are_deterministic_algorithms_enabled()))
    torch.use_deterministic_algorithms(False)  # with which torch has another way of its own
    with FakeTensorMode(allow_non_fake_inputs=True):
        x = torch.empty(2, 3, 40, device="cuda", requires_grad=True)
        with Operations() as seen:
            y = pad_ends(x, 3, 3, mode)
        assert y.shape == (2, 3, 46)
        assert y.device.type == "cuda"
        assert not [name for name in seen.names if "pad" in name]
        with Operations() as seen, torch.no_grad():
            pad_ends(x, 3, 3, mode)
        assert [name for name in seen.names if "pad" in name]


def test_too_few_samples_are_torchs_error() -> None:
    with pytest.raises(RuntimeError, match="Padding size should be less"):
        pad_ends(torch.zeros(1, 1, 3), 3, 3)
