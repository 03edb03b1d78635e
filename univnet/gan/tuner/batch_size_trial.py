"""One trial of a batch size: train a copy for a few full micro-batches, validate, and report time and memory."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from lightning.pytorch import Callback, LightningDataModule, Trainer, callbacks
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.data import extract_batch_size
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from univnet.gan.averaging.base import Averaging
from univnet.gan.lightning_internals import training_loaders, validate_by_epochs_alone
from univnet.gan.module import GANModule
from univnet.gan.tuner.memory import is_out_of_memory, is_scarce, reason

_NEVER = 10**9
_KEEP_WEIGHTS = (Averaging, getattr(callbacks, "WeightAveraging", Averaging))  # Lightning has the latter from 2.6 on


@dataclass(frozen=True)
class Trial:
    """The outcome of training with a batch size.

    Attributes:
        size: examples in a micro-batch of one rank.
        fits: whether memory sufficed on every rank.
        seconds: per micro-batch, loading included, without the first one; on the slowest rank. 0 if it does not fit.
        memory: peak memory in bytes, on the rank with the most: on an accelerator, what torch reserved; on the CPU,
            what the process and its loader workers used. ``None`` if it cannot be measured.
        examples: examples in an epoch of one rank; ``None`` for iterable datasets.
        reason: why it does not fit.
        resting: the players that were not trained in it.
    """

    size: int
    fits: bool
    seconds: float = 0.0
    memory: int | None = None
    examples: int | None = None
    reason: str = ""
    resting: tuple[str, ...] = ()

    @property
    def examples_per_second(self) -> float:
        """Examples per second on one rank; 0 if the size does not fit."""
        return self.size / self.seconds if self.seconds else 0.0


def training_callbacks(trainer: Trainer) -> list[Callback]:
    """Return those of the trainer's callbacks that keep weights, whose memory must be counted."""
    return [each for each in trainer.callbacks if isinstance(each, _KEEP_WEIGHTS)]  # type: ignore


def run_trial(
    trainer: Trainer,
    model: GANModule,
    datamodule: LightningDataModule | None,
    size: int,
    steps: int,
    whole_windows: bool = False,
    probe: bool = False,
) -> Trial:
    """Train ``model``, which is changed, with loaders whose batch size is already ``size``.

    Training takes at least ``steps`` full micro-batches, and goes on until every player has updated its weights and
    filled another window, with its optimizer's state in memory; it may take several epochs. Then ``steps`` batches of
    each validation loader follow. Windows are shortened to two micro-batches, because longer ones take no more memory,
    unless ``whole_windows`` is set. With ``probe``, only the epoch's examples are counted.
    """
    model.on_batch_size_trial()
    window = _set_windows(trainer, model, whole_windows)
    observer = _Observer(size, max(steps, 2 * window), window, probe)
    trainer.callbacks.append(observer)  # type: ignore[attr-defined]
    _remove_limits(trainer, steps)
    device = trainer.strategy.root_device
    _reset_peak(device)
    try:
        trainer.fit(model, datamodule=datamodule)
    except Exception as error:
        if not is_out_of_memory(error, scarce=observer.scarce):
            raise
        return Trial(size, False, memory=_peak(device), examples=observer.examples, reason=reason(error))
    if not observer.started:
        raise MisconfigurationException("there are no training batches to try")
    return Trial(
        size, not observer.short, observer.seconds, _peak(device), observer.examples, observer.short, observer.resting
    )


def _set_windows(trainer: Trainer, model: GANModule, whole: bool) -> int:
    """Shorten the players' windows unless ``whole`` is set; return the micro-batches that the longest one spans."""
    longest = 1
    for player in model.updates.values():
        schedule = player.settings.accumulate
        if not whole:
            most = max(schedule.values()) if isinstance(schedule, Mapping) else schedule
            player.settings = replace(player.settings, accumulate=min(most, 2))
        longest = max(longest, player.settings.accumulate_at(trainer.current_epoch) * player.settings.every)
    return longest


def _remove_limits(trainer: Trainer, validation_batches: int) -> None:
    """Let ``trainer`` train until ``should_stop`` is set, and validate only then."""
    validate_by_epochs_alone(trainer, validation_batches if trainer.limit_val_batches else 0, every_n_epochs=_NEVER)
    loop = trainer.fit_loop
    loop.min_epochs, loop.epoch_loop.min_steps = 0, None
    # If an end was set, keep one, because some averages begin at a fraction of it.
    if loop.max_epochs is not None and loop.max_epochs >= 0:
        loop.max_epochs = trainer.current_epoch + 1000
    if loop.epoch_loop.max_steps >= 0:
        loop.epoch_loop.max_steps = trainer.global_step + _NEVER


class _Observer(Callback):
    """Counts and times full micro-batches, allocates what else training would hold, and ends the fit."""

    def __init__(self, size: int, enough: int, window: int, probe: bool) -> None:
        self.size, self.enough, self.window, self.probe = size, enough, window, probe
        self.started = self.scarce = False
        self.short = ""
        self.resting: tuple[str, ...] = ()
        self.examples: int | None = None
        self.ddp_buckets: list[torch.Tensor] = []
        self.seconds = 0.0
        self._full = self._timed = 0  # micro-batches
        self._all_updated_at: int | None = None
        self._begun: dict[str, tuple[int, int]] = {}
        self._last: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Count the examples, and allocate what DDP would."""
        self.started = True
        loaders = training_loaders(trainer).flattened
        self.examples = _examples(loaders)
        if self.probe:
            trainer.should_stop = True
            trainer.limit_val_batches = 0
            return
        _check_size(loaders, self.size)
        if isinstance(trainer.strategy, DDPStrategy):  # DDP's reducer holds a copy of the gradients
            self.ddp_buckets = [torch.empty_like(p) for p in pl_module.parameters() if p.requires_grad]

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note the players' counters, and let every average hold weights."""
        if self._begun:
            return
        self._begun = {name: (player.steps, player.micro_batches) for name, player in pl_module.updates.items()}
        for average in trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(average, Averaging):
                average.bn_batches = 1
                if not average.n_averaged:
                    average.take(pl_module.updates[average.player])

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Take the time, and stop if the trial has seen enough."""
        synchronize(pl_module.device)
        now = time.perf_counter()
        if self._is_full(batch, batch_idx):
            self._full += 1
            if self._last is not None:
                self._timed += 1
                self.seconds += (now - self._last - self.seconds) / self._timed
        self._last = now
        waiting = [name for name, (steps, _) in self._begun.items() if pl_module.updates[name].steps == steps]
        if self._full >= self.enough:
            waiting = [name for name in waiting if pl_module.updates[name].micro_batches > self._begun[name][1]]
        if not waiting and self._all_updated_at is None:
            self._all_updated_at = self._full
        if self._all_updated_at is not None and self._full >= max(self.enough, self._all_updated_at + self.window):
            self._stop(trainer, pl_module)

    def on_exception(self, trainer: Trainer, pl_module: Any, exception: BaseException) -> None:
        """Look how much memory is free, before the trainer frees more."""
        self.scarce = is_scarce(trainer.strategy.root_device)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
        """Stop if an epoch's examples do not fill a micro-batch."""
        if not self._full:
            self.short = f"an epoch has fewer than {self.size} examples"
            trainer.should_stop = True

    def _is_full(self, batch: Any, batch_idx: int) -> bool:
        if self.examples is not None:
            return batch_idx < self.examples // self.size
        return extract_batch_size(batch) >= self.size

    def _stop(self, trainer: Trainer, pl_module: Any) -> None:
        trainer.should_stop = True
        trainer.check_val_every_n_epoch = 1  # Lightning then validates before it stops
        begun = self._begun.items()
        self.resting = tuple(name for name, (_, before) in begun if pl_module.updates[name].micro_batches == before)


def _examples(loaders: list[Any]) -> int | None:
    """Return the examples in an epoch of this rank: of the shortest loader, because a full batch of each is needed."""
    counts = []
    for loader in loaders:
        try:
            counts.append(len(getattr(loader.batch_sampler, "sampler", None) or loader.sampler))
        except (AttributeError, TypeError):  # an iterable dataset, or not a DataLoader
            continue
    return min(counts, default=None)


def _check_size(loaders: list[Any], size: int) -> None:
    sizes = [each.batch_size or getattr(each.batch_sampler, "batch_size", None) or size for each in loaders]
    if size not in sizes:
        raise MisconfigurationException(
            f"the training batches hold {max(sizes)} examples although the batch size is set to {size}: make "
            f"train_dataloader() use it"
        )


def _which(device: torch.device) -> tuple[torch.device, ...]:
    # Without a device torch asks the present one, which is another before the first fit. MPS has one and takes none.
    return () if device.type == "mps" else (device,)


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has finished its work."""
    if device.type != "cpu":
        torch.get_device_module(device).synchronize(*_which(device))


def _reset_peak(device: torch.device) -> None:
    memory = torch.get_device_module(device)
    if hasattr(memory, "reset_peak_memory_stats"):
        memory.reset_peak_memory_stats(*_which(device))


def _peak(device: torch.device) -> int | None:
    memory = torch.get_device_module(device)
    for name in ("max_memory_reserved", "driver_allocated_memory"):  # the second is for MPS, and is the present value
        if hasattr(memory, name):
            return int(getattr(memory, name)(*_which(device)))
    return None
