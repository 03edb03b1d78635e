"""Take what a module logs."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from lightning.pytorch import LightningModule


@contextmanager
def log_instead(module: LightningModule, log: Callable[..., None] = lambda *_, **__: None) -> Iterator[None]:
    """Let ``log`` take what ``module.log`` (and ``log_dict``, which calls it) is given meanwhile; default: drop it.

    Lightning refuses to log in many hooks.
    """
    before = vars(module).pop("log", None)
    module.log = log  # type: ignore[method-assign]
    try:
        yield
    finally:
        del module.log
        if before is not None:
            module.log = before  # type: ignore[method-assign]


@contextmanager
def renamed_log(module: LightningModule, rename: Callable[[str], str]) -> Iterator[None]:
    """Let ``module.log`` (and ``log_dict``, which calls it) log under other names meanwhile."""
    log = module.log
    with log_instead(module, lambda name, *args, **kwargs: log(rename(name), *args, **kwargs)):
        yield
