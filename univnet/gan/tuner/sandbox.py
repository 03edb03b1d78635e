"""Fit a copy of a module with the user's trainer, and restore everything afterwards: both finders use it.

The copy has its own weights, buffers, gradients, players and attributes, so the module itself never changes. For the
trial the trainer gets other loops, callbacks and loggers. Its attributes, random numbers and signal handlers are always
restored, and nothing is written to disk.
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
from univnet.gan.rng import begin_on, preserved

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
    """Yield a copy of ``model`` to fit with ``trainer``, which has ``callbacks`` instead of its own.

    Inside, ``trainer`` keeps its options and the number of updates made, skips sanity validation and logs nothing.
    Afterwards it, ``model``, the data, random numbers and signal handlers are as before.

    Raises:
        KeyboardInterrupt: on Ctrl-C, for which Lightning would end the process.
        MisconfigurationException: if ``trainer`` cannot train two players.
        ValueError: if the module cannot be copied.
    """
    refuse_one_optimizer_techniques(trainer)
    with ExitStack() as stack:
        stack.callback(garbage_collection_cuda)  # runs last, when nothing refers to the copy any more
        for thing in (*parts_with_state(trainer), *_parts(datamodule, train_dataloaders, val_dataloaders)):
            stack.enter_context(_restored(thing))
        stack.enter_context(_restored_scaler(trainer.precision_plugin))
        stack.enter_context(_restored_signals())
        begin_on(trainer.strategy.root_device)
        stack.enter_context(preserved())
        _set_up(trainer, callbacks)
        own_hyperparameters(datamodule)
        try:
            yield _copy(model)
        except SystemExit as leaving:  # Lightning raises it on Ctrl-C
            if trainer.interrupted:
                raise KeyboardInterrupt from leaving
            raise
        finally:
            for callback in trainer.callbacks:  # type: ignore[attr-defined]
                for name in ("log", "log_dict"):  # the copy's own methods, which Lightning has put there
                    vars(callback).pop(name, None)


def _set_up(trainer: Trainer, callbacks: Iterable[Callback]) -> None:
    """Give ``trainer`` new loops, callbacks, loggers and a new state."""
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
            f"{type(model).__name__} cannot be copied, but trials need a copy ({error}): keep no tensor with a graph, "
            f"no open file and no lock on the module, and use torch.nn.utils.parametrizations for weight norm"
        ) from error
    for parameter, original in zip(twin.parameters(), model.parameters(), strict=True):
        parameter.grad = None if original.grad is None else original.grad.clone()
    twin.configure_callbacks = lambda: []  # type: ignore[method-assign]
    return twin


def _parts(*roots: Any) -> list[Any]:
    """Return the data modules and loaders in ``roots``, and the loaders' samplers."""
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
def _restored(thing: Any) -> Iterator[None]:
    """Restore the attributes of ``thing`` after this context, and the states of generators among them."""
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
def _restored_scaler(plugin: Any) -> Iterator[None]:
    scaler: GradScaler | None = getattr(plugin, "scaler", None)
    state = scaler.state_dict() if scaler else {}
    try:
        yield
    finally:
        if scaler and state:
            scaler.load_state_dict(state)


@contextmanager
def _restored_signals() -> Iterator[None]:
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
