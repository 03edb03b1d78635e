"""Fit a copy of a module with the trainer at hand, and leave no trace: how both finders try things out.

The copy has weights, buffers, gradients, players and attributes of its own, so the module itself is never touched. The
trainer is lent to it with loops, callbacks and loggers of their own. What is left to put back is little: attributes,
random numbers and signal handlers. It is put back whatever happens, and nothing is written to disk meanwhile.
"""

import copy
import signal
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.profilers import PassThroughProfiler
from lightning.pytorch.trainer.states import TrainerState
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from univnet.gan.lightning_internals import own_hyperparameters, parts_with_state, start_from_fresh_loops
from univnet.gan.module import GANModule
from univnet.gan.refusals import refuse_one_optimizer_techniques
from univnet.gan.rng import preserved

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextmanager
def trial(
    trainer: Trainer,
    model: GANModule,
    callbacks: Iterable[Callback],
    train_dataloaders: Any = None,
    val_dataloaders: Any = None,
    datamodule: LightningDataModule | None = None,
) -> Iterator[GANModule]:
    """Lend ``trainer`` for fits of the copy of ``model`` that is yielded, with ``callbacks`` in place of its own.

    Inside, ``trainer`` has the options it was made with, goes on from the updates it has made, validates nothing before
    training, and logs nowhere. Afterwards it, ``model``, the data, random numbers and signal handlers are as before.

    Raises:
        KeyboardInterrupt: on Ctrl-C, where Lightning would end the process.
        MisconfigurationException: where ``trainer`` cannot train two players.
        ValueError: where the module cannot be copied.
    """
    refuse_one_optimizer_techniques(trainer)
    with ExitStack() as stack:
        stack.callback(garbage_collection_cuda)  # last of all, when nothing refers to the copy any more
        for thing in (*parts_with_state(trainer), *_parts(datamodule, train_dataloaders, val_dataloaders)):
            stack.enter_context(_kept(thing))
        stack.enter_context(_kept_scaler(trainer.precision_plugin))
        stack.enter_context(_kept_signals())
        stack.enter_context(preserved())
        _set_up(trainer, callbacks)
        own_hyperparameters(datamodule)
        try:
            yield _copy(model)
        except SystemExit as leaving:  # Lightning's answer to Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from leaving
            raise


def _set_up(trainer: Trainer, callbacks: Iterable[Callback]) -> None:
    """Give ``trainer`` loops, callbacks, logs and a state apart from its own."""
    start_from_fresh_loops(trainer)
    trainer.state, trainer.should_stop = TrainerState(), False
    trainer.callbacks = list(callbacks)  # type: ignore[attr-defined]
    trainer.loggers = [DummyLogger()] if trainer.loggers else []
    trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]
    trainer.num_sanity_val_steps = 0


def _copy(model: GANModule) -> GANModule:
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError, NotImplementedError) as error:
        raise ValueError(
            f"{type(model).__name__} cannot be copied, and only a copy of it is tried ({error}): keep no tensor with "
            f"a graph and no open file or lock on the module, and use torch.nn.utils.parametrizations for weight norm"
        ) from error
    for parameter, original in zip(twin.parameters(), model.parameters(), strict=True):
        parameter.grad = None if original.grad is None else original.grad.clone()
    twin.configure_callbacks = lambda: []  # type: ignore[method-assign]
    return twin


def _parts(*roots: Any) -> list[Any]:
    """Return the data modules and loaders in ``roots``, with the samplers of the loaders."""
    parts: list[Any] = []
    for root in roots:
        if isinstance(root, Mapping):
            parts += _parts(*root.values())
        elif isinstance(root, list | tuple):
            parts += _parts(*root)
        elif isinstance(root, LightningDataModule):
            parts += [root, *_parts(*vars(root).values())]
        elif isinstance(root, DataLoader):
            samplers = root.sampler, root.batch_sampler, getattr(root.batch_sampler, "sampler", None)
            parts += [root, *(sampler for sampler in samplers if hasattr(sampler, "__dict__"))]
    return parts


@contextmanager
def _kept(thing: Any) -> Iterator[None]:
    """Put the attributes of ``thing`` back, and the states of the random number generators among them."""
    attributes = dict(vars(thing))
    states = [(each, each.get_state()) for each in attributes.values() if isinstance(each, torch.Generator)]
    try:
        yield
    finally:
        for name in vars(thing).keys() - attributes.keys():
            delattr(thing, name)
        vars(thing).update(attributes)
        for generator, state in states:
            generator.set_state(state)


@contextmanager
def _kept_scaler(plugin: Any) -> Iterator[None]:
    scaler: GradScaler | None = getattr(plugin, "scaler", None)
    state = scaler.state_dict() if scaler else {}
    try:
        yield
    finally:
        if scaler and state:
            scaler.load_state_dict(state)


@contextmanager
def _kept_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
