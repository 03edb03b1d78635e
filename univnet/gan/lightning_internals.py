"""The only file that touches Lightning's private names: each in a small function, with its reason.

Read in Lightning 2.6.0 and 2.6.6. ``tests/gan/test_lightning_internals.py`` has a test per name, which says what is
gone when a new version has lost it. Public twins are used elsewhere where there are any.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch.distributed as dist
from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loops.fit_loop import _FitLoop
from lightning.pytorch.loops.training_epoch_loop import _TrainingEpochLoop
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy, Strategy
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher
from lightning.pytorch.trainer.connectors.logger_connector.logger_connector import _LoggerConnector
from lightning.pytorch.trainer.connectors.signal_connector import _SignalConnector
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch.amp import GradScaler

# The training step


def attached_trainer(module: LightningModule) -> Trainer | None:
    """Return the trainer that ``module`` is attached to, if any; the public property raises without one."""
    return module._trainer


def log_at_updates(trainer: Trainer) -> None:
    """Let whatever is logged lie at the generator updates made by then; Lightning counts micro-batches.

    Loggers' steps, ``LearningRateMonitor`` and ``DeviceStatsMonitor`` read a count that the loops raise at moments of
    their own, some of them between two hooks.
    """
    mark_micro_batches(trainer)  # their loop has the count
    trainer._logger_connector.__class__ = _UpdatesConnector


class _UpdatesConnector(_LoggerConnector):
    """Logs a micro-batch's metrics at its end, as Lightning does, but each at the updates made when it was noted."""

    def on_batch_start(self, batch: Any, dataloader_idx: int | None = None) -> None:
        self._updates_before = self.trainer.global_step
        super().on_batch_start(batch, dataloader_idx)

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        results = self.trainer._results
        within = self._first_loop_iter is not None and self.trainer.training and "step" not in metrics
        if step is None and within and results is not None:
            noted = [each for each in results.values() if each.meta.fx == "on_train_batch_start"]
            before = {results._forked_name(each, on_step=True)[1] for each in noted} & metrics.keys()
            if before:
                early = {"epoch": self.trainer.current_epoch} | {name: metrics[name] for name in before}
                super().log_metrics(early, self._updates_before)
                metrics = {name: value for name, value in metrics.items() if name not in before}
        super().log_metrics(metrics, step)


def ddp_options(strategy: DDPStrategy) -> dict[str, Any]:
    """Return the options with which ``strategy`` wraps the module, to read and to change before it does."""
    return strategy._ddp_kwargs


@contextmanager
def lent_scaler(plugin: Precision, scaler: GradScaler | None) -> Iterator[None]:
    """Let Lightning's fp16 plugin work with ``scaler`` meanwhile (``None``: without one); others work as they do.

    The plugin reads its attribute ``scaler`` in every backward pass and step, which nothing promises.
    """
    if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
        yield
        return
    plugin.scaler, its_own = scaler, plugin.scaler
    try:
        yield
    finally:
        plugin.scaler = its_own


def drop_searches(trainer: Trainer) -> None:
    """Take the callbacks away that Lightning's ``Tuner`` has put in for a search; it leaves them after an exception."""
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [one for one in callbacks if not getattr(one, "_early_exit", False)]  # the list stays the same one


# Data


def training_loaders(trainer: Trainer) -> CombinedLoader:
    """Return the training loaders as ``fit`` combines them; their ``flattened`` are the loaders themselves."""
    combined = trainer.fit_loop._combined_loader
    assert combined is not None, "there are no training loaders outside fit"
    return combined


def begin_loading_again(trainer: Trainer) -> None:
    """Begin the present epoch's iteration over the training loaders again; ``fit`` has begun it before it resumes."""
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None, "there are no training loaders outside fit"
    iter(fetcher)


def combination_mode(combined: CombinedLoader) -> Any:
    """Return the mode that ``combined`` was made with, to make another one like it."""
    return combined._mode


def validation_loaders(trainer: Trainer) -> Any:
    """Return the loaders that ``fit`` would validate on, also where it does not validate; ``None`` without any."""
    source = trainer.fit_loop.epoch_loop.val_loop._data_source
    return source.dataloader() if source.is_defined() else None


def on_device(trainer: Trainer, module: LightningModule, batch: Any) -> Any:
    """Return ``batch`` as the training step gets it: converted, through the transfer hooks, on the device."""
    batch = module._on_before_batch_transfer(trainer.precision_plugin.convert_input(batch), dataloader_idx=0)
    return trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def prepare_data(trainer: Trainer, module: LightningModule, datamodule: LightningDataModule | None) -> None:
    """Do what ``fit`` does with the data before its set-up: attach it, and prepare it on the ranks that should."""
    trainer._data_connector.attach_data(module, datamodule=datamodule)
    trainer._data_connector.prepare_data()


def set_hyperparameters(owner: Any) -> dict[str, Any]:
    """Return the hyperparameters of a module or data module where it has any; reading ``hparams`` would make some."""
    return owner.hparams if "_hparams" in vars(owner) else {}


def own_hyperparameters(owner: Any) -> None:
    """Give ``owner`` a copy of its hyperparameters, so that changes do not reach others who hold them."""
    if hasattr(owner, "_hparams"):
        owner._hparams = copy.deepcopy(owner.hparams)


# A trainer that is lent to a trial


def parts_with_state(trainer: Trainer) -> list[Any]:
    """Return the objects of ``trainer`` whose attributes a fit changes, besides callbacks, loggers and its fit loop."""
    loops = (trainer.validate_loop, trainer.test_loop, trainer.predict_loop)
    connectors = (trainer._data_connector, trainer._checkpoint_connector)
    sources = (loop._data_source for loop in loops)
    return [trainer, trainer.strategy, trainer.precision_plugin, *connectors, *loops, *sources]


def start_from_fresh_loops(trainer: Trainer) -> None:
    """Give ``trainer`` a fit loop and a record of logged values apart from its own, with the same counts and limits."""
    old = trainer.fit_loop
    trainer.fit_loop = _FitLoop(trainer, old.min_epochs, old.max_epochs)
    trainer.fit_loop.epoch_loop = _TrainingEpochLoop(trainer, old.epoch_loop.min_steps, old.epoch_loop.max_steps)
    trainer.fit_loop.load_state_dict(copy.deepcopy(old.state_dict()))
    trainer.fit_loop.restarting = False
    trainer._logger_connector = _LoggerConnector(trainer)


def validate_by_epochs_alone(trainer: Trainer, limit: int | float, every_n_epochs: int) -> None:
    """Train on whole epochs and validate on ``limit`` batches every so many; the constructor's options are overruled.

    The trainer has no setters for these: the constructor writes the same attributes.
    """
    vars(trainer).update(
        limit_train_batches=1.0,
        limit_val_batches=limit,
        reload_dataloaders_every_n_epochs=0,
        val_check_interval=1.0,
        check_val_every_n_epoch=every_n_epochs,
        _val_check_time_interval=None,
    )


# Where a run can be stopped


def mark_micro_batches(trainer: Trainer) -> None:
    """Have two more hooks called in ``fit``, of the module (without arguments) and of callbacks (with both).

    ``on_micro_batch_end`` follows a micro-batch and all that is logged of it, before validation or the epoch's end;
    ``on_fetch_start`` comes before the next one is fetched.
    """
    if type(trainer.fit_loop.epoch_loop) is _TrainingEpochLoop:
        trainer.fit_loop.epoch_loop.__class__ = _EpochLoop


def leave_signals(trainer: Trainer, over: Callable[[], None]) -> None:
    """Keep Lightning from handling signals in the next ``fit``, and call ``over`` when it would give them back.

    Its SIGTERM handler waits for other ranks wherever a rank happens to be, and its loop does so every micro-batch.
    """
    trainer._signal_connector.__class__ = _NoSignals
    trainer._signal_connector.over = over  # type: ignore[attr-defined]


def requeue_signal(trainer: Trainer) -> int | None:
    """Return the signal by which SLURM asks for a job to be saved and queued again, where it does."""
    environment = trainer._accelerator_connector.cluster_environment
    if isinstance(environment, SLURMEnvironment) and environment.auto_requeue:
        return environment.requeue_signal
    return None


class _NoSignals(_SignalConnector):
    """Leaves signals alone for one fit."""

    def register_signal_handlers(self) -> None:
        self.received_sigterm = False

    def teardown(self) -> None:
        self.__class__ = _SignalConnector  # type: ignore[assignment]
        vars(self).pop("over")()


class _EpochLoop(_TrainingEpochLoop):
    """An epoch loop that says where its micro-batches begin and end, and whose axis is the generator's updates."""

    at_end = False  # a micro-batch is behind, and what follows it is not

    @property
    def _batches_that_stepped(self) -> int:  # which Lightning logs at
        return self.global_step

    @_batches_that_stepped.setter
    def _batches_that_stepped(self, value: int) -> None: ...

    def advance(self, data_fetcher: Any) -> None:
        self.at_end = False
        self._fetch_starts()
        super().advance(data_fetcher)

    def _fetch_starts(self) -> None:
        self._call("on_fetch_start")

    def on_advance_end(self, data_fetcher: Any) -> None:
        self.at_end = True
        self._call("on_micro_batch_end")
        super().on_advance_end(data_fetcher)
        self.at_end = False

    def _call(self, hook: str) -> None:
        trainer, module = self.trainer, self.trainer.lightning_module
        getattr(module, hook)()
        for callback in [each for each in trainer.callbacks if hasattr(each, hook)]:  # type: ignore[attr-defined]
            getattr(callback, hook)(trainer, module)

    def _broadcast_sigterm_tensor(self) -> None:
        if not isinstance(self.trainer._signal_connector, _NoSignals):
            super()._broadcast_sigterm_tensor()


# Ranks

_ALONE: Mapping[str, Any] = {
    "_launcher": None,
    "setup_distributed": lambda: None,
    "configure_ddp": lambda: None,
    "reduce_boolean_decision": lambda decision, all=True: decision,
}


@contextmanager
def hidden_group(strategy: DDPStrategy) -> Iterator[None]:
    """Hide the process group meanwhile: Lightning's reductions, barriers and broadcasts then do nothing."""
    before = {name: vars(strategy)[name] for name in _ALONE if name in vars(strategy)}
    group, dist.GroupMember.WORLD = dist.GroupMember.WORLD, None
    vars(strategy).update(_ALONE)
    try:
        yield
    finally:
        for name in _ALONE:
            del vars(strategy)[name]
        vars(strategy).update(before)
        dist.GroupMember.WORLD = group


def starts_ranks_per_fit(strategy: Strategy) -> bool:
    """Whether the ranks are processes that last no longer than one ``fit``: spawned or forked."""
    return isinstance(strategy.launcher, _MultiProcessingLauncher)


# Resuming


def validation_is_due(trainer: Trainer) -> bool:
    """Whether ``fit`` has yet to validate, or to finish validating, before the next micro-batch, as far as is known."""
    loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
    if trainer.validating:
        validated = loop.val_loop.batch_progress
        return not (validated.is_last_batch and validated.current.ready == validated.current.completed)
    done = loop.batch_progress.state_dict()["current"]
    at_its_end = done["processed"] > done["completed"] or getattr(loop, "at_end", False)
    if fetcher is None or not at_its_end or loop._skip_next_val or not loop._should_check_val_fx(fetcher):
        return False
    return loop.val_loop._combined_loader is None or not loop.val_loop.skip  # with nothing to validate on, it does not


def set_loops(
    trainer: Trainer,
    loops: dict[str, Any],
    *,
    epoch: int,
    batches: int,
    total_batches: int,
    steps: int,
    validation: bool,
    epoch_end: bool,
) -> None:
    """Write into a checkpoint's ``loops`` where a run stands, so that Lightning goes on there by its own code.

    Lightning's counters differ with the hook in which a checkpoint was written, and some of those that it writes lose
    a validation, an epoch's end or a whole epoch. These stand for one moment alone: the end of a micro-batch, before
    what follows it. What is due then, the loops do first: they take the validation for interrupted, or skip the one
    that is behind them.

    Args:
        trainer: the trainer that is about to load ``loops``.
        loops: of a checkpoint, changed in place.
        epoch: epochs that are wholly behind.
        batches: micro-batches of the present epoch that are behind.
        total_batches: the same of the whole run.
        steps: generator updates.
        validation: a validation is due.
        epoch_end: the present epoch's end is due.
    """
    state = loops["fit_loop"]
    state["epoch_loop.batch_progress"] = {
        "total": _counts(total_batches),
        "current": _counts(batches),
        "is_last_batch": epoch_end,
    }
    begun = epoch + (batches > 0)
    epochs = {"ready": begun, "started": begun, "processed": epoch, "completed": epoch}
    state["epoch_progress"] = {"total": epochs, "current": dict(epochs)}
    begun = int(validation)
    validated = {"ready": begun, "started": begun, "processed": 0, "completed": 0}
    state["epoch_loop.val_loop.batch_progress"] = {
        "total": validated,
        "current": dict(validated),
        "is_last_batch": False,
    }
    taken = {"ready": steps, "completed": steps}
    state["epoch_loop.manual_optimization.optim_step_progress"] = {"total": taken, "current": dict(taken)}
    state["epoch_loop.state_dict"] = {}
    for loader in state["state_dict"].get("combined_loader", ()):
        if isinstance(loader, dict) and {"epoch", "position"} <= loader.keys():  # one that counts batches, as ours does
            loader.update(epoch=epoch, position=batches)  # it may have handed out one that was not trained on
    if validation or epoch_end:
        trainer.fit_loop.__class__, trainer.fit_loop.epoch_loop.__class__ = _DueFitLoop, _DueEpochLoop


def _counts(number: int) -> dict[str, int]:
    return dict.fromkeys(("ready", "started", "processed", "completed"), number)


class _DueFitLoop(_FitLoop):
    """A resumed fit loop with something due: it does that even where the run has made all its updates."""

    @property
    def done(self) -> bool:
        return not self.epoch_loop.restarting and super().done


class _DueEpochLoop(_EpochLoop):
    """A resumed epoch loop with something due: first of all it validates, or skips the validation that is behind it."""

    @property
    def done(self) -> bool:
        return not self.restarting and super().done

    def _fetch_starts(self) -> None:
        if not self.restarting:  # else what is due comes first
            super()._fetch_starts()

    def _should_check_val_fx(self, data_fetcher: Any) -> bool:
        return self.restarting or super()._should_check_val_fx(data_fetcher)
