"""A LightningModule for two simultaneous players: the whole training step, and what Lightning leaves to us."""

import functools
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from typing import Any, Self

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.loops.evaluation_loop import RestartStage
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy, SingleDeviceStrategy
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from univnet.gan.rng import rng_state, set_rng_state
from univnet.gan.schedules import Schedules, due, watches
from univnet.gan.updates import Player, Updates, frozen

log = logging.getLogger(__name__)

Losses = Tensor | Mapping[str, Tensor] | None


class GANModule(LightningModule):
    """Train a generator against a discriminator, each with its own accumulation, clipping, schedule and guard.

    Subclass it and define :meth:`generate`, :meth:`generator_loss`, :meth:`discriminator_loss`, and
    ``configure_optimizers`` (the generator's optimizer first, the discriminator's second; schedulers in any of
    Lightning's forms, ``interval: step`` counting that player's updates). A subclass that overrides
    ``setup``, ``on_train_start``, ``on_train_epoch_end``, ``on_save_checkpoint`` or ``on_load_checkpoint`` calls
    ``super()``'s.

    ``trainer.global_step``, ``max_steps``, ``every_n_train_steps`` and the loggers' axis count the generator's
    updates; ``module.updates["discriminator"].steps`` and ``.micro_batches`` count the rest.

    Args:
        generator_updates: how the generator's gradients become updates.
        discriminator_updates: the same for the discriminator.
    """

    def __init__(self, generator_updates: Updates = Updates(), discriminator_updates: Updates = Updates()) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.updates = {
            "generator": Player("generator", generator_updates),
            "discriminator": Player("discriminator", discriminator_updates),
        }
        self._schedules = Schedules()
        self._resumed: dict[str, Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the subclass's ``configure_optimizers`` before Lightning does, which drops a scheduler's monitor."""
        super().__init_subclass__(**kwargs)
        if "configure_optimizers" in cls.__dict__:
            configure = cls.configure_optimizers

            @functools.wraps(configure)
            def noted(self: Self) -> Any:
                return self._schedules.note(configure(self))

            setattr(cls, "configure_optimizers", noted)  # noqa: B010 - mypy refuses a plain assignment

    def generate(self, batch: Any) -> Any:
        """Return the generator's output for ``batch``: a tensor, or any nest of tensors. Runs once a micro-batch."""
        raise NotImplementedError(f"{type(self).__name__} must define generate(batch)")

    def generator_loss(self, batch: Any, fake: Any) -> Losses:
        """Return the generator's loss, a scalar or a dict of named scalars of which ``"loss"`` is the one.

        ``fake`` carries gradient. The discriminator is frozen meanwhile: gradient flows through it, not into it.
        ``None``, before a window opens, sits this micro-batch out.
        """
        raise NotImplementedError(f"{type(self).__name__} must define generator_loss(batch, fake)")

    def discriminator_loss(self, batch: Any, fake: Any) -> Losses:
        """Return the discriminator's loss, like :meth:`generator_loss`; ``fake`` is detached here."""
        raise NotImplementedError(f"{type(self).__name__} must define discriminator_loss(batch, fake)")

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Let one generator forward serve both players, then close the windows that are full.

        Both losses come before either update, so the players are simultaneous. The generator goes first because
        its graph is the larger one and is then free before the discriminator builds its own.
        """
        generator, discriminator = self.updates.values()
        last = self.trainer.is_last_batch
        fake = self.generate(batch)
        full = []
        if self._accumulate(generator, self.generator_loss, batch, fake, last):
            full.append(generator)
        if self._accumulate(discriminator, self.discriminator_loss, batch, _detached(fake), last):
            full.append(discriminator)
        moved = [player for player in full if self._update(player)]
        if generator in moved:
            self._log_updates()
        if last:
            self._step_epoch_schedulers(watching=False)
        # Lightning would count micro-batches here. This is the axis of every metric it logs.
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def _accumulate(self, player: Player, loss: Callable, batch: Any, fake: Any, last: bool) -> bool:
        """Add this micro-batch to ``player``'s window; return whether that fills it."""
        if player.optimizer is None:
            raise RuntimeError(f"{type(self).__name__}.on_train_start must call super().on_train_start()")
        player.open(self.current_epoch)
        closes = player.closes(last)
        with self._turn(player, sync=closes):
            losses = loss(batch, fake)
            if losses is not None:
                player.accumulate(_named(losses, player.name), self._backward)
        if losses is None and player.position:
            raise ValueError(f"{player.name}_loss returned None inside an open window of {player.name} updates")
        return closes and losses is not None

    def _update(self, player: Player) -> bool:
        """Close ``player``'s window. Return whether its weights moved."""
        assert player.optimizer is not None
        with self._scaler(None), self._full_precision():
            moved = player.update(lambda: self._optimizer_step(player))
        if moved:
            self._step_schedulers(due(self.trainer.lr_scheduler_configs, "step", player.steps), player)
        return moved

    def _optimizer_step(self, player: Player) -> None:
        # Every LightningOptimizer.step() counts in trainer.global_step, so only the generator's goes through one.
        if player is self.updates["generator"]:
            self._optimizers()[0].step()
        else:
            assert player.optimizer is not None
            self.trainer.strategy.optimizer_step(player.optimizer, lambda: None)

    def _backward(self, loss: Tensor) -> None:
        with self._full_precision():  # autocast is for forward passes
            self.manual_backward(loss)

    @contextmanager
    def _turn(self, player: Player, sync: bool) -> Iterator[None]:
        """Freeze the other player, lend ``player``'s loss scaler, and leave DDP's all-reduce out unless ``sync``."""
        own = set(player.parameters)
        others = [p for other in self.updates.values() for p in other.parameters if p not in own]
        strategy = self.trainer.strategy
        with ExitStack() as stack:
            stack.enter_context(frozen(others))
            stack.enter_context(self._scaler(player.scaler))
            if isinstance(strategy, ParallelStrategy) and not sync:
                stack.enter_context(strategy.block_backward_sync())
            yield

    @contextmanager
    def _scaler(self, scaler: torch.amp.GradScaler | None) -> Iterator[None]:
        """Let Lightning's fp16 plugin work with ``scaler`` meanwhile (``None``: without one)."""
        plugin = self.trainer.precision_plugin
        if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
            yield
            return
        plugin.scaler, lent = scaler, plugin.scaler
        try:
            yield
        finally:
            plugin.scaler = lent

    def _full_precision(self) -> AbstractContextManager:
        device = self.device.type
        return torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext()

    def _step_schedulers(self, configs: list[LRSchedulerConfig], player: Player | None = None) -> None:
        if configs:
            self._see_metrics()
            self._schedules.step(configs, self.lr_scheduler_step, player.optimizer if player else None)

    def _see_metrics(self) -> None:
        own = {name: value for player in self.updates.values() for name, value in player.metrics().items()}
        self._schedules.see({**self.trainer.callback_metrics, **own})

    def _step_epoch_schedulers(self, watching: bool) -> None:
        configs = due(self.trainer.lr_scheduler_configs, "epoch", self.current_epoch + 1)
        self._step_schedulers([config for config in configs if watches(config) == watching])

    def _log_updates(self) -> None:
        """Log both players' last reports, once a generator update, at that update's number."""
        metrics = {k: v for player in self.updates.values() for k, v in player.metrics().items()}
        for name, value in metrics.items():
            self.log(name, value, prog_bar=name.endswith("/loss"), logger=False)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self.global_step % every == 0:
            scalars = {name: float(value) for name, value in metrics.items()} | {"epoch": self.current_epoch}
            for logger in self.trainer.loggers:
                logger.log_metrics(scalars, step=self.global_step)
                logger.save()
            for player in self.updates.values():
                player.logged()

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients of open windows through validation; closed windows have none."""

    def setup(self, stage: str) -> None:
        """Give DDP the flag that two players need, or refuse a strategy that cannot train them."""
        strategy = self.trainer.strategy
        if isinstance(strategy, DDPStrategy):
            # In each player's turn the other's parameters get no gradient.
            if not strategy._ddp_kwargs.setdefault("find_unused_parameters", True):
                raise MisconfigurationException(
                    "Two players need find_unused_parameters=True: use strategy=ddp or "
                    "strategy=ddp_find_unused_parameters_true"
                )
        elif not isinstance(strategy, SingleDeviceStrategy):
            raise MisconfigurationException(
                f"{type(strategy).__name__} cannot train two players: use strategy=auto or strategy=ddp"
            )

    def on_train_start(self) -> None:
        """Bind each player to its optimizer and, after a resume, put its open window back."""
        optimizers = self._optimizers()
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for player, optimizer in zip(self.updates.values(), optimizers, strict=True):
            player.bind(optimizer.optimizer, scaler)
            if self._resumed:
                player.load_state_dict(self._resumed["players"][player.name])
            elif self.global_step == 0:
                player.reset()
        if self._resumed:
            resumed, self._resumed = self._resumed, None
            if len(resumed["rng"]) == self.trainer.world_size:
                set_rng_state(resumed["rng"][self.global_rank])
            else:
                log.warning("random numbers differ from the run resumed: it had %d processes", len(resumed["rng"]))
            self._schedules.seen = resumed["watched"]
            self._finish_micro_batch(**resumed["due"])

    def on_train_epoch_end(self) -> None:
        """Step the plateau schedulers that watch an epoch's metrics."""
        if self.trainer.is_last_batch:  # not where max_steps ends the run within an epoch
            self._step_epoch_schedulers(watching=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add the players (open windows included) and the random number generators of every rank."""
        if self.updates["generator"].optimizer is None:  # nothing was trained
            return
        players = {name: player.state_dict() for name, player in self.updates.items()}
        states = [rng_state()]
        if self.trainer.world_size > 1 and dist.is_initialized():
            for state in players.values():  # by linearity, the ranks' mean serves each of them
                state["grads"] = apply_to_collection(state["grads"], Tensor, self._mean_over_ranks)
            states *= self.trainer.world_size
            dist.all_gather_object(states, rng_state())
        loop = self.trainer.fit_loop.epoch_loop
        done = loop.batch_progress.state_dict()["current"]
        ending = done["processed"] > done["completed"]
        due = {
            "validation": ending and loop._should_check_val_fx(self.trainer.fit_loop._data_fetcher),  # type: ignore[arg-type]
            "epoch_end": ending and self.trainer.is_last_batch,
        }
        self._see_metrics()
        checkpoint["gan"] = {"players": players, "rng": states, "due": due, "watched": self._schedules.seen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what :meth:`on_train_start` restores."""
        self._resumed = checkpoint.get("gan")

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        if not isinstance(optimizers, list) or len(optimizers) != 2:
            raise MisconfigurationException(
                f"{type(self).__name__}.configure_optimizers must return two optimizers: the generator's, then "
                f"the discriminator's"
            )
        return optimizers

    def _finish_micro_batch(self, validation: bool, epoch_end: bool) -> None:
        """Do what was due after the micro-batch at whose end a checkpoint was taken; resuming, Lightning forgets it."""
        fit, loop = self.trainer.fit_loop, self.trainer.fit_loop.epoch_loop
        loop.val_loop.restarting = False
        if not epoch_end:
            if validation:  # pretend that it was interrupted, which Lightning mends
                loop.val_loop._restart_stage = RestartStage.RESTARTED_MID_EVALUATION
                loop._batches_that_stepped = self.global_step - 1  # it adds one
            return
        loop._batches_that_stepped = self.global_step
        fit.epoch_progress.current.completed -= 1  # all this belongs to the epoch that Lightning has just put behind it
        if validation:
            self.trainer.validating = True
            loop.val_loop.run()
            self.trainer.training = True
        self._step_epoch_schedulers(watching=True)
        fit.epoch_progress.current.completed += 1

    def _mean_over_ranks(self, tensor: Tensor) -> Tensor:
        return self.trainer.strategy.reduce(tensor.clone(), reduce_op="mean")


def _named(losses: Tensor | Mapping[str, Tensor], player: str) -> Mapping[str, Tensor]:
    terms = losses if isinstance(losses, Mapping) else {"loss": losses}
    if "loss" not in terms:
        raise ValueError(f"{player}_loss returned {sorted(terms)}: one term must be named 'loss'")
    return terms


def _detached(fake: Any) -> Any:
    return apply_to_collection(fake, Tensor, Tensor.detach)
