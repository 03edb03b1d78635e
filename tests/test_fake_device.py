"""No device and no type meets another: every network, loss and update on tensors that say they are on a GPU.

They hold no numbers, so this needs no GPU. Autograd's engine needs one; the functions with a backward of their own are
called by hand.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode, unset_fake_temporarily
from torch.nn.utils import get_total_norm
from torch.utils._python_dispatch import TorchDispatchMode

from univnet import Generator, LogMelSpectrogram, UnivNet, Vocoder
from univnet.audio import mel
from univnet.gan import Updates
from univnet.gan.shared_forward import _Precomputed, _WithGradients
from univnet.gan.updates import Player
from univnet.losses import Hinge, Judged, MultiScaleMelLoss
from univnet.models import lvc, lvc_block

CUDA = torch.device("cuda", 0)
# No kernel of their gradients on CUDA adds in a fixed order (torch.use_deterministic_algorithms lists them).
NOT_DETERMINISTIC = (
    "reflection_pad",
    "replication_pad",
    "grid_sampler",
    "adaptive_",
    "upsample",
    "index_put_.accumulate",
)


@contextmanager
def autocast() -> Iterator[None]:
    """Do what ``torch.autocast("cuda")`` does; it does nothing where there is no GPU."""
    torch.set_autocast_enabled("cuda", True)
    torch.set_autocast_dtype("cuda", torch.bfloat16)
    try:
        yield
    finally:
        torch.set_autocast_enabled("cuda", False)
        torch.clear_autocast_cache()


class Watch(TorchDispatchMode):
    """Notes the operations, and of which types their results are."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[str] = []
        self.types: dict[str, set[torch.dtype]] = {}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func)
        self.operations.append(name)
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self.types.setdefault(name.split(".")[1], set()).add(result.dtype)
        return result


@pytest.fixture(params=["float32", "bfloat16"])
def precision(request: pytest.FixtureRequest) -> Callable[[], Any]:
    return nullcontext if request.param == "float32" else autocast


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    filters = mel.melscale_fbanks

    def real_filters(*args: Any, **options: Any) -> Tensor:  # torchaudio looks at their numbers
        with unset_fake_temporarily(), torch.device("cpu"):
            return filters(*args, **options)

    monkeypatch.setattr(mel, "melscale_fbanks", real_filters)
    with FakeTensorMode(allow_non_fake_inputs=True), torch.device(CUDA), Watch() as watching:
        yield watching


def on_cuda(value: Any) -> None:
    if isinstance(value, Tensor):
        assert value.device == CUDA, value
    elif isinstance(value, dict):
        on_cuda([*value.values()])
    else:
        for each in value:
            on_cuda(each)


def batch(size: int = 2, samples: int = 8192) -> dict[str, Tensor]:
    return {"audio": torch.randn(size, 1, samples), "mel": torch.randn(size, 100, samples // 256)}


@pytest.mark.parametrize("extra", [{}, {"feature_weight": 2.0, "mel_weight": 15.0, "adversarial_loss": Hinge()}])
def test_both_players_losses(watch: Watch, precision: Callable[[], Any], extra: dict[str, Any]) -> None:
    module = UnivNet(Generator(channels=16), **extra)
    module._trainer = SimpleNamespace(global_step=1)
    module.updates["discriminator"].steps = 1
    given = batch()
    given["audio"].requires_grad_()  # so that all padding is such as has a gradient
    watch.operations.clear()
    with precision():
        fake = module.generate(given)
        on_cuda(fake)
        assert fake.shape == given["audio"].shape
        # The forward that both share needs autograd's engine, so each player has its own.
        parts, judge = module.discriminator.parts(), module.adversarial_loss.judge
        judged = {name: (judge(part, given["audio"]), judge(part, fake)) for name, part in parts.items()}
        for name, (real, of_fake) in judged.items():
            on_cuda((of_fake.scores, real.scores, of_fake.features))
            detached = Judged(real.scores.detach(), [each.detach() for each in real.features])
            for terms in (
                module.adversarial_loss.generator(of_fake, detached),
                module.adversarial_loss.discriminator(real, of_fake),
            ):
                on_cuda(terms)
                assert {term.dtype for term in terms.values()} == {torch.float32}, name
        terms = module._reconstruction(fake, given["audio"])
        on_cuda(terms)
        assert {term.dtype for term in terms.values()} == {torch.float32}
    in_half = precision is autocast
    assert (torch.bfloat16 in watch.types["convolution"]) == in_half
    assert watch.types["_fft_r2c"] == {torch.complex64}  # never in half precision
    disordered = [name for name in watch.operations if any(each in name for each in NOT_DETERMINISTIC)]
    assert disordered == ["aten.reflection_pad1d.default"]  # of the noise, which has no gradient


@pytest.mark.parametrize("hop", [8, 64, 256])
def test_the_location_variable_convolution_and_its_gradient(
    watch: Watch, precision: Callable[[], Any], hop: int
) -> None:
    x, kernel = torch.randn(2, 16, 4 * hop), torch.randn(2, 4, 32, 16, 3)
    bias = torch.randn(2, 4, 32)
    with precision():
        y = lvc.location_variable_convolution(x, kernel.permute(0, 3, 2, 4, 1), bias.transpose(1, 2), hop)
        on_cuda(y)
        assert y.shape == (2, 32, 4 * hop)
    half = torch.bfloat16 if precision is autocast else torch.float32
    x, kernel, bias = (each.to(half) for each in (x, kernel, bias))
    context = SimpleNamespace(saved_tensors=(x, kernel), hop_size=hop)
    grads = lvc._ByFrame.backward.__wrapped__(context, torch.randn(2, 4, 32, hop, dtype=half))
    for grad, value in zip(grads, (x, kernel, bias), strict=False):
        assert (grad.shape, grad.dtype, grad.device) == (value.shape, value.dtype, CUDA)


def test_the_gate_and_its_gradient(watch: Watch, precision: Callable[[], Any]) -> None:
    half = torch.bfloat16 if precision is autocast else torch.float32
    x, y = torch.randn(2, 16, 32), torch.randn(2, 4, 32, 8, dtype=half)
    with precision():
        gated = lvc_block._Gate.apply(x.requires_grad_(), y.requires_grad_().clone())
    assert (gated.shape, gated.dtype, gated.device) == (x.shape, torch.float32, CUDA)
    by_x, by_y = lvc_block._Gate.backward.__wrapped__(
        SimpleNamespace(saved_tensors=(y.detach(),)), torch.randn(2, 16, 32)
    )
    assert (by_x.shape, by_y.shape, by_y.dtype, by_y.device) == (x.shape, y.shape, half, CUDA)


def test_gradients_computed_in_advance(watch: Watch) -> None:
    inputs = [torch.randn(3, requires_grad=True), torch.randn(2, 2, requires_grad=True)]
    ready = _Precomputed({"loss": torch.zeros(())}, tuple(torch.randn_like(each) for each in inputs))
    on_cuda(ready.terms(inputs))
    context = SimpleNamespace(saved_tensors=ready.gradients)
    on_cuda(_WithGradients.backward.__wrapped__(context, torch.ones(()))[3:])


@pytest.mark.parametrize("settings", [Updates(), Updates(clip_norm=1.0), Updates(clip_norm=1.0, clip_value=0.5)])
def test_norms_and_clipping(watch: Watch, settings: Updates) -> None:
    network = nn.Linear(3, 4)
    player = Player("generator", settings)
    player.optimizers = (torch.optim.AdamW(network.parameters(), fused=True),)
    for parameter in network.parameters():
        parameter.grad = torch.randn_like(parameter)
    grads = [parameter.grad for parameter in network.parameters()]
    norm = get_total_norm(grads)
    on_cuda(norm)
    player._clip([*network.parameters()], grads, norm)
    on_cuda([parameter.grad for parameter in network.parameters()])
    if settings.clip_norm:
        on_cuda(player._clipped_updates)
    loss = torch.ones((), requires_grad=True)
    player.accumulate({"loss": loss}, on_cuda)  # what becomes NaN with it
    on_cuda(player._sums.totals)


def test_mels_and_audio(watch: Watch, precision: Callable[[], Any]) -> None:
    spectrogram, audio = LogMelSpectrogram(), torch.randn(2, 1, 8192)
    with precision():
        frames = spectrogram(audio)
        on_cuda(frames)
        assert (frames.shape, frames.dtype) == ((2, 100, 32), torch.float32)
        on_cuda(MultiScaleMelLoss()(audio, audio))
    vocoder = Vocoder(Generator(channels=16), spectrogram)
    with precision():
        on_cuda(vocoder(frames, seed=None))  # a seed needs a generator on the device
        on_cuda(vocoder(frames, seed=None, chunk_frames=40))
        on_cuda([*vocoder.stream([frames, frames], seed=None)])
