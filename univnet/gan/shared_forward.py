"""One discriminator forward on the generated audio for both players' losses, part by part."""

import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from univnet.gan.precision import no_autocast
from univnet.gan.updates import requiring_grad

Terms = Mapping[str, Tensor]
Parts = Mapping[str, nn.Module]


class SharedForward:
    """Both players' adversarial losses over a discriminator's parts, each run once on fakes and once on reals.

    The players are simultaneous, so both losses see the same scores of the fakes. ``generator_terms`` therefore
    computes the gradients of both losses, one part after the other, and holds the activations of one part only.
    ``discriminator_terms`` of the same audio then returns what was computed, so the weights must not change in between.
    Both return ordinary scalars to combine and to call ``backward()`` on (once differentiable). Use both methods or
    neither: otherwise one player's gradients are computed in vain.

    Each player has its own forward passes if gradients cannot be computed in advance: in fp16 (where the loss must be
    scaled first), if the fakes or a part's weights have gradient hooks, and if no gradient is recorded.

    Args:
        of_generator: ``fake -> {"loss": scalar, …}`` of one part, where ``fake`` is what ``judge`` returns for the
            fakes: by default the part's scores. Other terms are for logging.
        of_discriminator: ``(real, fake) -> {"loss": scalar, …}``, of what ``judge`` returns for both.
        generator_sees_real: call ``of_generator(fake, real)`` instead, ``real`` without gradient: for feature matching
            and relativistic losses. The reals' forward pass then comes first.
        judge: runs a part: ``(part, audio) ->`` a tensor, or a list, tuple or dict of tensors; default:
            ``part(audio)``.
    """

    def __init__(
        self,
        of_generator: Callable[..., Terms],
        of_discriminator: Callable[[Any, Any], Terms],
        generator_sees_real: bool = False,
        judge: Callable[[nn.Module, Tensor], Any] = operator.call,
    ) -> None:
        self._of_generator, self._of_discriminator = of_generator, of_discriminator
        self._generator_sees_real, self._judge = generator_sees_real, judge
        self._ready: _Ready | None = None

    def generator_terms(self, parts: Parts, fake: Tensor, real: Tensor) -> dict[str, Terms]:
        """Return each part's terms of the generator's loss, with gradient to ``fake`` and none to the parts.

        Args:
            parts: the discriminator's parts, by name. ``GANModule`` has frozen them at this point; in other training
                loops freeze them, because they get gradient if the forward is not shared.
            fake: the generator's output, any shape.
            real: the real examples.
        """
        self._ready = None
        if not _can_share(parts, fake):
            return {name: self._generator_alone(part, fake, real) for name, part in parts.items()}
        both = {name: self._both(part, fake, real) for name, part in parts.items()}
        precomputed = {name: discriminators for name, (_, discriminators) in both.items()}
        self._ready = _Ready(fake.detach(), fake._version, real, real._version, precomputed)
        return {name: generators.terms([fake]) for name, (generators, _) in both.items()}

    def discriminator_terms(self, parts: Parts, fake: Tensor, real: Tensor) -> dict[str, Terms]:
        """Return each part's terms of the discriminator's loss, with gradient to the parts and none to ``fake``."""
        ready, self._ready = self._ready, None
        if ready is not None and ready.is_for(parts, fake, real):
            return {name: ready.precomputed[name].terms(part.parameters()) for name, part in parts.items()}
        fake, judge = fake.detach(), self._judge
        return {name: self._of_discriminator(judge(part, real), judge(part, fake)) for name, part in parts.items()}

    def _generator_alone(self, part: nn.Module, fake: Tensor, real: Tensor) -> Terms:
        if not self._generator_sees_real:
            return self._of_generator(self._judge(part, fake))
        with torch.no_grad():
            of_real = self._judge(part, real)
        return self._of_generator(self._judge(part, fake), of_real)

    def _both(self, part: nn.Module, fake: Tensor, real: Tensor) -> "tuple[_Precomputed, _Precomputed]":
        parameters = list(part.parameters())
        with requiring_grad(parameters, True):  # the generator's turn freezes all of them
            seen = []
            if self._generator_sees_real:
                of_real = self._judge(part, real)
                seen.append(apply_to_collection(of_real, Tensor, Tensor.detach))
            of_fake = self._judge(part, fake)
            generator = self._of_generator(of_fake, *seen)
            with no_autocast(fake.device):
                to_fake = torch.autograd.grad(generator["loss"], [fake], retain_graph=True)
            generator = _values(generator)  # frees its graph
            if not self._generator_sees_real:
                of_real = self._judge(part, real)
            discriminator = self._of_discriminator(of_real, of_fake)
            with no_autocast(fake.device):
                to_own = torch.autograd.grad(discriminator["loss"], parameters, allow_unused=True) if parameters else ()
        return _Precomputed(generator, to_fake), _Precomputed(_values(discriminator), to_own)


@dataclass(frozen=True)
class _Precomputed:
    """Terms of a loss, with its gradients."""

    values: Terms
    gradients: tuple[Tensor | None, ...]

    def terms(self, inputs: Iterable[Tensor]) -> Terms:
        pairs = [(g, x) for g, x in zip(self.gradients, inputs, strict=True) if g is not None]
        loss = _WithGradients.apply(self.values["loss"], *(g for g, _ in pairs), *(x for _, x in pairs))
        return {**self.values, "loss": loss}


@dataclass(frozen=True)
class _Ready:
    """The discriminator's terms, and the audio that they belong to."""

    fake: Tensor
    fake_version: int
    real: Tensor
    real_version: int
    precomputed: dict[str, _Precomputed]

    def is_for(self, parts: Parts, fake: Tensor, real: Tensor) -> bool:
        # self.fake is alive, so no other tensor can have its memory; in-place changes raise the version.
        same = (self.fake.data_ptr(), self.fake.shape) == (fake.data_ptr(), fake.shape) and self.real is real
        unchanged = (self.fake_version, self.real_version) == (fake._version, real._version)
        return same and unchanged and self.precomputed.keys() == parts.keys()


class _WithGradients(torch.autograd.Function):
    """Maps (value, n gradients, n inputs) to the value, as a function of the inputs with these gradients."""

    @staticmethod
    def forward(ctx: Any, value: Tensor, *gradients_and_inputs: Tensor) -> Tensor:
        ctx.save_for_backward(*gradients_and_inputs[: len(gradients_and_inputs) // 2])
        return value.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, cotangent: Tensor) -> tuple[Tensor | None, ...]:
        gradients = ctx.saved_tensors
        return (None, *(None for _ in gradients), *torch._foreach_mul(gradients, cotangent))


def _can_share(parts: Parts, fake: Tensor) -> bool:
    kind = fake.device.type
    in_fp16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    weights = [p for part in parts.values() for p in part.parameters()]
    hooked = any(tensor._backward_hooks for tensor in (fake, *weights))  # they would run twice
    return fake.requires_grad and torch.is_grad_enabled() and not in_fp16 and not hooked


def _values(terms: Terms) -> Terms:
    return {name: term.detach() for name, term in terms.items()}
