"""One discriminator forward on the generated examples for both players' losses, part by part."""

import logging
import operator
import weakref
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from univnet.gan.precision import no_autocast
from univnet.gan.updates import requiring_grad

log = logging.getLogger(__name__)

Terms = Mapping[str, Tensor]
Parts = Mapping[str, nn.Module]

_WASTED = 2  # shares in a row that nobody collects end the sharing


class SharedForward:
    """Both players' adversarial losses over a discriminator's parts, each run once on fakes and once on reals.

    The players are simultaneous, so both losses see the same scores of the fakes. ``generator_terms`` therefore
    computes the gradients of both losses, one part after the other, and holds the activations of one part only.
    ``discriminator_terms`` of the same examples then returns what was computed, if the weights are the same as well.
    Both return ordinary scalars to combine and to call ``backward()`` on (once differentiable). Use both methods or
    neither: otherwise one player's gradients are computed in vain.

    Each player has its own forward passes if gradients cannot be computed in advance: in fp16 (where the loss must be
    scaled first), if a part's weights have gradient hooks, in evaluation mode, and if no gradient is recorded. It also
    has them where the discriminator plays first, or judges other fakes than the generator's: the first share that does
    not fit, or the second in a row that is never collected, is the last one, with a warning. What was shared is freed
    with the fakes.

    Args:
        of_generator: ``fake -> {"loss": scalar, …}`` of one part, where ``fake`` is what ``judge`` returns for the
            fakes: by default the part's scores. Other terms are for logging.
        of_discriminator: ``(real, fake) -> {"loss": scalar, …}``, of what ``judge`` returns for both.
        generator_sees_real: call ``of_generator(fake, real)`` instead, ``real`` without gradient: for feature matching
            and relativistic losses. The reals' forward pass then comes first.
        judge: runs a part: ``(part, examples, *condition) ->`` a tensor, or a list, tuple or dict of tensors; default:
            ``part(examples, *condition)``.
    """

    def __init__(
        self,
        of_generator: Callable[..., Terms],
        of_discriminator: Callable[[Any, Any], Terms],
        generator_sees_real: bool = False,
        judge: Callable[..., Any] = operator.call,
    ) -> None:
        self._of_generator, self._of_discriminator = of_generator, of_discriminator
        self._generator_sees_real, self._judge = generator_sees_real, judge
        self._share: _Share | None = None
        self._wasted = 0

    def generator_terms(
        self,
        parts: Parts,
        fake: Tensor,
        real: Tensor,
        *condition: Any,
        handle: Tensor | None = None,
        share: bool = True,
    ) -> dict[str, Terms]:
        """Return each part's terms of the generator's loss, with gradient to ``fake`` and none to the parts.

        Args:
            parts: the discriminator's parts, by name. ``GANModule`` has frozen them at this point; in other training
                loops freeze them, because they get gradient if the forward is not shared.
            fake: the generator's output, any shape.
            real: the real examples.
            condition: what the parts also see, of fakes and reals alike: tensors, nested tensors or anything else. It
                gets the gradient that it wants.
            handle: the tensor by which ``discriminator_terms`` knows that it is called for the same examples: the same
                tensor there, or a detached one. Default: ``fake``, ``real`` and ``condition``. Give the output of
                ``generate`` if the examples are made of it in both methods, such as
                ``torch.cat([condition, fake], 1)``.
            share: compute the discriminator's gradients as well. ``GANModule.one_forward_serves_both`` tells whether
                they will be asked for.
        """
        if self._share is not None:
            self._waste(1, "discriminator_terms was not called after it for the same micro-batch")
        seen = _tensors([fake, *condition])
        if not share or self._wasted >= _WASTED or not _can_share(parts, seen):
            return {name: self._generator_alone(part, fake, real, condition) for name, part in parts.items()}
        both = {name: self._both(part, fake, real, condition) for name, part in parts.items()}
        precomputed = {name: discriminators for name, (_, discriminators) in both.items()}
        self._share = _Share(_key(parts, fake, real, condition, handle), precomputed)
        return {name: generators.terms(filter(_wants_gradient, seen)) for name, (generators, _) in both.items()}

    def discriminator_terms(
        self, parts: Parts, fake: Tensor, real: Tensor, *condition: Any, handle: Tensor | None = None
    ) -> dict[str, Terms]:
        """Return each part's terms of the discriminator's loss, with gradient to the parts alone.

        The arguments are those of ``generator_terms``, without ``share``.
        """
        share, self._share = self._share, None
        if share is not None:
            if share.is_for(_key(parts, fake, real, condition, handle), parts):
                self._wasted = 0
                return {name: share.precomputed[name].terms(part.parameters()) for name, part in parts.items()}
            self._waste(_WASTED, "discriminator_terms was called with other tensors, or the weights have changed")
        judge = self._judge
        fake, condition = apply_to_collection((fake, condition), Tensor, Tensor.detach)
        return {
            name: self._of_discriminator(judge(part, real, *condition), judge(part, fake, *condition))
            for name, part in parts.items()
        }

    def _waste(self, severity: int, why: str) -> None:
        """Forget a share that was computed in vain."""
        self._share = None
        self._wasted += severity
        if self._wasted >= _WASTED:
            log.warning(
                "SharedForward computed the discriminator's gradients in vain: %s. From here on each player has its "
                "own forward passes. If both methods judge the same examples, made twice, give both the same handle=",
                why,
            )

    def _generator_alone(self, part: nn.Module, fake: Tensor, real: Tensor, condition: tuple[Any, ...]) -> Terms:
        if not self._generator_sees_real:
            return self._of_generator(self._judge(part, fake, *condition))
        with torch.no_grad():
            of_real = self._judge(part, real, *condition)
        return self._of_generator(self._judge(part, fake, *condition), of_real)

    def _both(
        self, part: nn.Module, fake: Tensor, real: Tensor, condition: tuple[Any, ...]
    ) -> "tuple[_Precomputed, _Precomputed]":
        parameters = list(part.parameters())
        # Gradients end here, and go on through the generator when its player's loss runs backward.
        fake, condition = apply_to_collection((fake, condition), Tensor, _as_leaf)
        wanted = list(filter(_wants_gradient, _tensors([fake, *condition])))
        of_condition = apply_to_collection(condition, Tensor, Tensor.detach)
        with requiring_grad(parameters, True):  # the generator's turn freezes all of them
            seen = []
            if self._generator_sees_real:
                of_real = self._judge(part, real, *of_condition)
                seen.append(apply_to_collection(of_real, Tensor, Tensor.detach))
            of_fake = self._judge(part, fake, *condition)
            generator = self._of_generator(of_fake, *seen)
            with no_autocast(fake.device):
                to_fake = torch.autograd.grad(generator["loss"], wanted, retain_graph=True, allow_unused=True)
            generator = _values(generator)  # frees its graph
            if not self._generator_sees_real:
                of_real = self._judge(part, real, *of_condition)
            discriminator = self._of_discriminator(of_real, of_fake)
            with no_autocast(fake.device):
                to_own = torch.autograd.grad(discriminator["loss"], parameters, allow_unused=True) if parameters else ()
        return _Precomputed(generator, to_fake), _Precomputed(_values(discriminator), to_own)

    def __getstate__(self) -> dict[str, Any]:
        """Leave the share out of copies: it belongs to this object's examples."""
        return {**vars(self), "_share": None}


@dataclass(frozen=True)
class _Precomputed:
    """Terms of a loss, with its gradients."""

    values: Terms
    gradients: tuple[Tensor | None, ...]

    def terms(self, inputs: Iterable[Tensor]) -> Terms:
        pairs = [(g, x) for g, x in zip(self.gradients, inputs, strict=True) if g is not None]
        loss = _WithGradients.apply(self.values["loss"], *(g for g, _ in pairs), *(x for _, x in pairs))
        return {**self.values, "loss": loss}


class _Share:
    """The discriminator's terms, and what they belong to: tensors with the versions that they had.

    It holds none of these tensors, and the terms no longer than all of them live: after an exception they are gone
    with the frames that held the fakes.
    """

    def __init__(self, key: list[Any], precomputed: dict[str, _Precomputed]) -> None:
        self.precomputed = precomputed
        # Nothing here refers to the share itself, so it needs no garbage collector.
        self._key = [
            (weakref.ref(each, lambda _: precomputed.clear()), _version(each))
            if isinstance(each, Tensor)
            else (lambda each=each: each, 0)
            for each in key
        ]

    def is_for(self, key: list[Any], parts: Parts) -> bool:
        if self.precomputed.keys() != parts.keys() or len(self._key) != len(key):
            return False
        return all(_same(known(), version, each) for (known, version), each in zip(self._key, key, strict=True))


def _key(parts: Parts, fake: Tensor, real: Tensor, condition: tuple[Any, ...], handle: Tensor | None) -> list[Any]:
    """Return all that must be the same in both players' turns."""
    examples = [fake, real, *condition] if handle is None else [handle]
    weights = [p for part in parts.values() for p in part.parameters()]
    return [*_leaves(examples), *weights]


def _same(known: Any, version: int, now: Any) -> bool:
    if not (isinstance(known, Tensor) and isinstance(now, Tensor)):
        return known is now or (isinstance(known, int | float | str) and known == now)
    # A detached tensor has the memory and the version of its source; in-place changes raise the version.
    alike = known is now or (known.dtype == now.dtype and known.device == now.device and known.is_set_to(now))
    return alike and _version(now) == version


def _version(tensor: Tensor) -> int:
    return 0 if tensor.is_inference() else tensor._version


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


def _can_share(parts: Parts, seen: list[Tensor]) -> bool:
    kind = seen[0].device.type
    in_fp16 = torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16
    weights = [p for part in parts.values() for p in part.parameters()]
    hooked = any(tensor._backward_hooks for tensor in weights)  # they would run twice
    trains = any(part.training for part in parts.values())  # in evaluation nobody would collect
    return trains and seen[0].requires_grad and torch.is_grad_enabled() and not in_fp16 and not hooked


def _leaves(nested: Any) -> list[Any]:
    if isinstance(nested, Mapping):
        return _leaves(list(nested.values()))
    return [leaf for each in nested for leaf in _leaves(each)] if isinstance(nested, list | tuple) else [nested]


def _tensors(nested: Any) -> list[Tensor]:
    found: list[Tensor] = []
    apply_to_collection(nested, Tensor, found.append)
    return found


def _as_leaf(tensor: Tensor) -> Tensor:
    return tensor.detach().requires_grad_(tensor.requires_grad)


def _wants_gradient(tensor: Tensor) -> bool:
    return tensor.requires_grad


def _values(terms: Terms) -> Terms:
    return {name: term.detach() for name, term in terms.items()}
