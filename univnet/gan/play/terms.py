"""What a subclass's methods return: checked in the user's words, and detached for the discriminator."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

import numpy as np
import torch
from torch import Tensor

Losses = Tensor | Mapping[str, Tensor] | None

# Leaves of ``generate``'s output that can carry no gradient.
_PLAIN: tuple[type, ...] = (
    *(type(None), str, bytes, bool, int, float, complex, range, Enum, np.ndarray, np.generic),
    *(torch.dtype, torch.device, torch.Size, torch.Generator),
)


def named_terms(losses: Tensor | Mapping[str, Tensor], player: str, method: str = "") -> Mapping[str, Tensor]:
    """Return what ``player``'s loss method returned as named terms, of which ``"loss"`` is one.

    Args:
        losses: a scalar tensor, or a mapping of such, of which ``"loss"`` is the loss; the others may be numbers.
        player: the player's name.
        method: the method that returned it; default: the player's loss.

    Raises:
        ValueError: there is no ``"loss"``, or a term is not a scalar.
        TypeError: it is something else.
    """
    method = method or f"{player}_loss"
    if not isinstance(losses, Tensor | Mapping):
        raise TypeError(f"{method} returned {_kind(losses)}: return a scalar tensor, or a dict of them with 'loss'")
    terms = losses if isinstance(losses, Mapping) else {"loss": losses}
    if "loss" not in terms:
        raise ValueError(f"{method} returned {sorted(terms)}: one term must be named 'loss'")
    if not isinstance(terms["loss"], Tensor):
        raise TypeError(f"{method} returned a 'loss' that is {_kind(terms['loss'])}: it must be a scalar tensor")
    terms = {name: _scalar(value, name, method) for name, value in terms.items()}
    for name, value in terms.items():
        if value.ndim:
            shape = tuple(value.shape)
            raise ValueError(f"{method} returned {name!r} of shape {shape}: it must be a scalar, such as its .mean()")
    return terms


def loss_terms(losses: Tensor | Mapping[str, Tensor], player: str, method: str = "") -> Mapping[str, Tensor]:
    """Return ``named_terms`` of a loss that has a gradient.

    Raises:
        ValueError: it has none.
    """
    terms = named_terms(losses, player, method)
    if not terms["loss"].requires_grad:
        raise ValueError(
            f"{method or f'{player}_loss'} returned a loss without gradient to the {player}'s weights: compute it from "
            "its networks, outside no_grad and detach, or return None on micro-batches on which the player rests"
        )
    return terms


def detached(fake: Any) -> Any:
    """Return ``fake``, a tensor or nested tensors, without gradient.

    Raises:
        TypeError: it holds an object that is no plain value and has no ``detach()``.
    """
    if callable(getattr(fake, "detach", None)):
        return fake.detach()
    if isinstance(fake, _PLAIN):
        return fake
    if isinstance(fake, Mapping):
        items = {key: detached(value) for key, value in fake.items()}
        return items if type(fake) is dict else type(fake)(items)  # type: ignore[call-arg]
    if isinstance(fake, list | tuple | set | frozenset):
        values = [detached(value) for value in fake]
        return type(fake)(*values) if hasattr(fake, "_fields") else type(fake)(values)
    if is_dataclass(fake) and not isinstance(fake, type):
        return replace(fake, **{each.name: detached(getattr(fake, each.name)) for each in fields(fake) if each.init})
    raise TypeError(
        f"generate returned {_kind(fake)}, which cannot be detached for the discriminator: return tensors, nested in "
        "lists, tuples, dicts or dataclasses, or give the class a method detach()"
    )


def _scalar(value: Any, name: str, method: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, bool | int | float | np.generic):
        return torch.tensor(float(value))
    raise TypeError(f"{method} returned {name!r} that is {_kind(value)}: each term must be a scalar tensor")


def _kind(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"
