"""The generator classes that a checkpoint may name. Nothing is imported or run because a file says so."""

from collections.abc import Callable
from typing import TypeVar, overload

from univnet.models.base import BaseGenerator

Kind = TypeVar("Kind", bound=type[BaseGenerator])

_REGISTERED: dict[str, type[BaseGenerator]] = {}


@overload
def register_generator(kind: Kind) -> Kind: ...
@overload
def register_generator(*, name: str) -> Callable[[Kind], Kind]: ...
def register_generator(kind: Kind | None = None, *, name: str | None = None) -> Kind | Callable[[Kind], Kind]:
    """Let checkpoints name this generator's class, so that ``Vocoder.from_checkpoint`` can rebuild it.

    A decorator, with or without arguments. Checkpoints hold the name, so keep it when the class moves. The module that
    defines the class must be imported before such a checkpoint is loaded.

    Args:
        kind: the class.
        name: what checkpoints call it; the class's own name by default.

    Raises:
        ValueError: if another class has that name already.
    """

    def register(kind: Kind) -> Kind:
        registered = _REGISTERED.setdefault(called := name or kind.__name__, kind)
        if (registered.__module__, registered.__qualname__) != (kind.__module__, kind.__qualname__):
            raise ValueError(
                f"{_path(registered)} is registered as {called!r} already: register {_path(kind)} with another name="
            )
        _REGISTERED[called] = kind  # a class defined again, as in a notebook, replaces its predecessor
        return kind

    return register if kind is None else register(kind)


def generator_name(kind: type) -> str:
    """Return what checkpoints call a class of generators: its registered name, or else its module and name."""
    return next((name for name, registered in _REGISTERED.items() if registered is kind), _path(kind))


def generator_class(name: object) -> type[BaseGenerator]:
    """Return the class that is registered under a name.

    Raises:
        ValueError: if there is none.
    """
    if not isinstance(name, str) or name not in _REGISTERED:
        raise ValueError(
            f"the generator's class {name!r} is not known here (known: {', '.join(sorted(_REGISTERED))}): import the "
            f"module that defines it, and have it registered with univnet.models.register_generator(name={name!r})"
        )
    return _REGISTERED[name]


def _path(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"
