"""Everything that a search must leave as it was, in a form that can be compared bit for bit."""

import copy
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import numpy as np
import torch
from torch.utils.data import DataLoader

from univnet.gan import GANModule


def state_of(trainer: L.Trainer, model: GANModule, *loaders: DataLoader, folder: Path | None = None) -> dict[str, Any]:
    """Return it, copied, so that nothing in it changes any more."""
    plugin, strategy, metrics = trainer.precision_plugin, trainer.strategy, trainer.callback_metrics
    state = {
        "weights": model.state_dict(),
        "gradients": [p.grad for p in model.parameters()],
        "trainable": [p.requires_grad for p in model.parameters()],
        "modes": [layer.training for layer in model.modules()],
        "hyperparameters": dict(model.hparams),
        "players": {name: p.state_dict() if p.optimizer else p.report for name, p in model.updates.items()},
        "module": sorted(vars(model)),
        "optimizers": [optimizer.state_dict() for optimizer in trainer.optimizers],
        "schedulers": [config.scheduler.state_dict() for config in trainer.lr_scheduler_configs],
        "held": set(model.schedules.held),
        "scaler": plugin.scaler.state_dict() if getattr(plugin, "scaler", None) else None,
        "callbacks": [callback.state_dict() for callback in trainer.callbacks],
        "averages": [getattr(callback, "_average", None) for callback in trainer.callbacks],
        "counters": trainer.fit_loop.state_dict(),
        "metrics": dict(metrics),
        "random": [random.getstate(), np.random.get_state()[1], torch.get_rng_state()],  # noqa: NPY002
        "loaders": [loader.state_dict() if hasattr(loader, "state_dict") else None for loader in loaders],
        "generators": [loader.generator.get_state() for loader in loaders if loader.generator is not None],
        "samplers": [{k: v for k, v in vars(loader.sampler).items() if isinstance(v, int)} for loader in loaders],
        "files": sorted(str(path) for path in folder.rglob("*")) if folder else [],
    }
    # Objects that must be the very same, not only equal.
    same = [
        *(trainer.callbacks, *trainer.callbacks, trainer.loggers, *trainer.loggers, trainer.fit_loop, trainer.state),
        *(trainer.profiler, trainer.limit_val_batches, trainer.datamodule, strategy.model, *trainer.optimizers),
        *(trainer._logger_connector, model._trainer, *model.parameters()),
        *(signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)),
    ]
    return {**copy.deepcopy(state), "same": [id(each) for each in same], "where": os.getcwd()}


def assert_same(before: Any, after: Any, path: str = "state") -> None:
    assert type(before) is type(after), path
    if isinstance(before, dict):
        assert before.keys() == after.keys(), path
        for key, value in before.items():
            assert_same(value, after[key], f"{path}[{key!r}]")
    elif isinstance(before, list | tuple):
        assert len(before) == len(after), path
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            assert_same(one, other, f"{path}[{index}]")
    elif isinstance(before, torch.Tensor):
        assert torch.equal(before, after), path
    elif isinstance(before, np.ndarray):
        assert np.array_equal(before, after), path
    elif isinstance(before, float) and before != before:
        assert after != after, path
    else:
        assert before == after, path


def assert_equal_leaves(ours: Any, theirs: Any) -> None:
    """The same tensors and values at the same keys; the kinds of the containers may differ."""
    flat, other = dict(_leaves(ours)), dict(_leaves(theirs))
    assert flat.keys() == other.keys()
    differ = [
        key
        for key, value in flat.items()
        if not (torch.equal(value, other[key]) if isinstance(value, torch.Tensor) else value == other[key])
    ]
    assert not differ


def _leaves(state: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(state, dict):
        for key, value in state.items():
            yield from _leaves(value, f"{path}/{key}")
    elif isinstance(state, list | tuple):
        for index, value in enumerate(state):
            yield from _leaves(value, f"{path}/{index}")
    else:
        yield path, state
