"""What must be a tensor, and often is an array."""

from typing import Any

from torch import Tensor


def require_tensor(value: Any, what: str) -> None:
    """Refuse a ``value`` that is no tensor.

    Raises:
        TypeError: says so, by ``what``, and how to make one.
    """
    if not isinstance(value, Tensor):
        kind = f"{type(value).__module__}.{type(value).__qualname__}".removeprefix("builtins.")
        raise TypeError(f"{what} must be a torch.Tensor, got {kind}: take torch.as_tensor(…) of it")
