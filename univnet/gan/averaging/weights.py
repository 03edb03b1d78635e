"""A network's effective weights: read them to average, exchange them to use the average."""

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized


class Weights:
    """The parameters and persistent buffers of ``network``, under their names in its state dict.

    Args:
        network: any module.
        effective: read a parametrized (weight-normed) tensor as the network uses it, under its plain name, instead
            of the tensors from which it is computed.

    Attributes:
        buffers: the names of the buffers.

    Raises:
        MisconfigurationException: if parametrizations cannot produce arbitrary weights; it names all of them.
    """

    def __init__(self, network: nn.Module, effective: bool = True) -> None:
        self._places = dict(_places(network, effective))
        self.buffers = {name for name, (module, key) in self._places.items() if key in module._buffers}
        constrained = [name for name, place in self._places.items() if not _is_free(*place)]
        if constrained:
            raise MisconfigurationException(
                f"the parametrization of {', '.join(constrained)} cannot take an average's value; "
                f"use weights='parameters'"
            )

    @torch.no_grad()
    def read(self) -> dict[str, Tensor]:
        """Return the present values; all but computed ones share the network's memory."""
        return {name: getattr(module, key).detach() for name, (module, key) in self._places.items()}

    @torch.no_grad()
    def exchange(self, values: Mapping[str, Tensor]) -> "Exchange":
        """Return the exchange of the network's tensors with ``values``, of which the buffers are copied."""
        pairs: dict[int, tuple[Tensor, Tensor]] = {}  # by identity: a tensor with several names is exchanged once
        for name, (module, key) in self._places.items():
            olds = _tensors(module, key)
            value = values[name].to(olds[0].device, olds[0].dtype, copy=name in self.buffers)
            pairs |= {id(old): (old, new) for old, new in zip(olds, _inverse(module, key, value), strict=True)}
        return Exchange(list(pairs.values()))


class Exchange:
    """Each call swaps the tensors' own contents with other contents, by reference, so that no bit changes."""

    def __init__(self, pairs: list[tuple[Tensor, Tensor]]) -> None:
        self._tensors = [old for old, _ in pairs]
        self._contents = [old.data for old, _ in pairs], [new for _, new in pairs]
        self._shown = 0

    def __call__(self) -> None:
        """Swap the contents."""
        self._show(1 - self._shown)

    def undo(self) -> None:
        """Restore the tensors' own contents, also after a call that was interrupted."""
        self._show(0)

    def _show(self, which: int) -> None:
        self._shown = which
        for tensor, content in zip(self._tensors, self._contents[which], strict=True):
            tensor.data = content


def _places(module: nn.Module, effective: bool, prefix: str = "") -> Iterator[tuple[str, tuple[nn.Module, str]]]:
    """Yield each name with its module and attribute."""
    folded = effective and is_parametrized(module)
    own = {**module._parameters, **module._buffers}
    for key in (*(_parametrizations(module) if folded else ()), *own):
        if own.get(key, key) is not None and key not in module._non_persistent_buffers_set:
            yield prefix + key, (module, key)
    for key, child in module._modules.items():
        if child is not None and not (folded and key == "parametrizations"):
            yield from _places(child, effective, f"{prefix}{key}.")


def _parametrizations(module: nn.Module) -> dict[str, Any]:
    return dict(module.parametrizations.items()) if is_parametrized(module) else {}  # type: ignore


def _tensors(module: nn.Module, key: str) -> list[Tensor]:
    """Return the tensors that hold an attribute's value or from which it is computed."""
    if key not in _parametrizations(module):
        return [getattr(module, key)]
    parts = _parametrizations(module)[key]
    return [parts.original] if parts.is_tensor else [getattr(parts, f"original{i}") for i in range(parts.ntensors)]


def _inverse(module: nn.Module, key: str, value: Tensor) -> list[Tensor]:
    """Return the contents of those tensors that give the attribute this ``value``."""
    answer: Any = value
    for part in reversed(_parametrizations(module).get(key, [])):
        answer = part.right_inverse(answer)
    return [answer] if isinstance(answer, Tensor) else list(answer)


@torch.no_grad()
def _is_free(module: nn.Module, key: str) -> bool:
    """Whether the attribute can have any value: tried with twice its value, which a normalized tensor cannot have."""
    parts = _parametrizations(module).get(key, [])
    if not parts:
        return True
    if not all(hasattr(part, "right_inverse") for part in parts):
        return False
    double = 2 * getattr(module, key)
    try:
        exchange = Exchange(list(zip(_tensors(module, key), _inverse(module, key, double), strict=True)))
    except (NotImplementedError, ValueError):
        return False
    exchange()
    got = getattr(module, key)
    exchange()
    return torch.allclose(got, double, rtol=1e-3)
