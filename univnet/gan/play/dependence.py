"""Which loss terms depend on the other player, seen in a training step itself."""

import sys
import weakref
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from univnet.gan.module import GANModule
from univnet.gan.play.terms import named_terms


def note_adversarial_terms(module: GANModule, players: Collection[str], note: Callable[[str, set[str]], None]) -> None:
    """Call ``note(player, names)`` with the terms of each of the ``players``' next loss that depend on another player.

    They are what torch computes from the others' weights or, for any player but the generator, from the fakes. The
    losses are computed as ever and no more often, but not compiled meanwhile.
    """
    followed = {name: _Followed() for name in players}
    methods = {name: f"{name}_loss" for name in module.updates}
    own = {method: vars(module)[method] for method in methods.values() if method in vars(module)}
    waiting = set(players)

    def restore() -> None:
        for method in methods.values():
            vars(module).pop(method)
        vars(module).update(own)

    def traced(player: str, compute: Callable[[Any, Any], Any], batch: Any, fake: Any) -> Any:
        with ExitStack() as stack:
            if "torch._dynamo" in sys.modules:
                stack.enter_context(torch.compiler.set_stance("force_eager"))
            for name, each in followed.items():  # in every turn, because a loss may be computed in another player's
                each.add([p for other in module.updates.values() if other.name != name for p in other.parameters])
                each.add([] if name == "generator" else _tensors(fake))
                stack.enter_context(each)
            losses = compute(batch, fake)
        if losses is not None and player in waiting:
            terms = named_terms(losses, player)
            note(player, {name for name, term in terms.items() if term in followed[player]})
            waiting.discard(player)
            if not waiting:
                restore()
        return losses

    for name, method in methods.items():
        setattr(module, method, partial(traced, name, getattr(module, method)))


class _Followed(TorchFunctionMode):
    """Those tensors that were added, and that were computed from them inside this context."""

    def __init__(self) -> None:
        super().__init__()
        self._known: dict[int, weakref.ref[Tensor]] = {}

    def add(self, tensors: Sequence[Tensor]) -> None:
        """Follow these tensors, too."""
        for tensor in tensors:  # a tensor's number is free for another one when it is gone
            self._known[id(tensor)] = weakref.ref(tensor, partial(self._forget, id(tensor)))

    def _forget(self, number: int, _: Any) -> None:
        self._known.pop(number, None)

    def __contains__(self, tensor: Tensor) -> bool:
        return id(tensor) in self._known

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if any(tensor in self for tensor in _tensors([args, kwargs])):
            self.add(_tensors(result))
        return result


def _tensors(nested: Any) -> list[Tensor]:
    if isinstance(nested, Mapping):
        nested = list(nested.values())
    if isinstance(nested, list | tuple):
        return [tensor for each in nested for tensor in _tensors(each)]
    return [nested] if isinstance(nested, Tensor) else []
