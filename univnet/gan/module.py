"""A LightningModule for two simultaneous players: the whole training step, and the hooks that it needs."""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Self

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.core.optimizer import LightningOptimizer
from lightning.pytorch.strategies import DDPStrategy, ParallelStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from univnet.gan.endurance.checkpoint_io import WholeCheckpointIO
from univnet.gan.endurance.kept import Kept
from univnet.gan.lightning_internals import attached_trainer, ddp_options, lent_scaler, log_at_updates
from univnet.gan.precision import no_autocast
from univnet.gan.refusals import refuse_one_optimizer_techniques, strategy_mistake
from univnet.gan.resume import Position, Progress, capture, check_complete, check_optimizers, replay, restore
from univnet.gan.rng import set_apart
from univnet.gan.schedules import Schedules
from univnet.gan.updates import Player, Updates, frozen

Losses = Tensor | Mapping[str, Tensor] | None


class GANModule(LightningModule):
    """Train a generator against a discriminator, each with its own accumulation, clipping, schedule and guard.

    Subclass it and define ``generate``, ``generator_loss``, ``discriminator_loss``, and
    ``configure_optimizers`` (the generator's optimizer first, the discriminator's second; schedulers in any of
    Lightning's forms, ``interval: step`` counting that player's updates). A subclass that overrides
    ``configure_callbacks``, ``setup``, ``on_fit_start``, ``on_train_start``, ``on_train_epoch_end``,
    ``on_validation_start``, ``on_save_checkpoint`` or ``on_load_checkpoint`` calls ``super()``'s.

    ``trainer.global_step``, ``max_steps``, ``every_n_train_steps`` and the loggers' axis count the generator's
    updates; ``module.updates["discriminator"].steps`` and ``.micro_batches`` count the rest.

    Args:
        generator_updates: how the generator's gradients become updates.
        discriminator_updates: the same for the discriminator.

    Attributes:
        updates: each player's counters and settings, by name.
        schedules: steps both players' schedulers; a callback that sets a player's rate adds its name to ``held``.
        watched: for each player, the logged term that a learning-rate range test watches.
    """

    watched: ClassVar[Mapping[str, str]] = {"generator": "generator/loss", "discriminator": "discriminator/loss"}

    def __init__(self, generator_updates: Updates = Updates(), discriminator_updates: Updates = Updates()) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.updates = {
            "generator": Player("generator", generator_updates),
            "discriminator": Player("discriminator", discriminator_updates),
        }
        self.schedules = Schedules(self.updates)
        self._progress = Progress()
        self._kept = Kept()
        self._resumed: dict[str, Any] | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Read the subclass's ``configure_optimizers`` before Lightning does, which drops a scheduler's monitor."""
        super().__init_subclass__(**kwargs)
        if "configure_optimizers" in cls.__dict__:
            configure = cls.configure_optimizers

            @functools.wraps(configure)
            def noted(self: Self) -> Any:
                return self.schedules.note(configure(self))

            setattr(cls, "configure_optimizers", noted)  # noqa: B010 - mypy refuses a plain assignment

    def generate(self, batch: Any) -> Any:
        """Return the generator's output for ``batch``: a tensor or nested tensors. Runs once per micro-batch."""
        raise NotImplementedError(f"{type(self).__name__} must define generate(batch)")

    def generator_loss(self, batch: Any, fake: Any) -> Losses:
        """Return the generator's loss: a scalar, or a dict of named scalars, of which ``"loss"`` is the loss.

        ``fake`` has gradient. The discriminator is frozen: gradient passes through it, but its weights get none.
        ``None`` skips this micro-batch; it is not allowed inside an open window.
        """
        raise NotImplementedError(f"{type(self).__name__} must define generator_loss(batch, fake)")

    def discriminator_loss(self, batch: Any, fake: Any) -> Losses:
        """Return the discriminator's loss, like ``generator_loss``, but ``fake`` is detached."""
        raise NotImplementedError(f"{type(self).__name__} must define discriminator_loss(batch, fake)")

    def on_batch_size_trial(self) -> None:
        """Begin at once what normally begins late in training: the batch-size finder calls this on each copy it tries.

        A batch size must fit for the whole training, so override this if a player is not trained at first.
        """

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Run one generator forward for both players and both losses, then close the windows that are full.

        Both losses come before either update, so the players are simultaneous. The generator goes first: its graph is
        free before the discriminator builds one of its own.
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
        self.schedules.after_updates(self.trainer, moved)
        if generator in moved:
            self._log_updates()
        if last:
            self.schedules.after_epoch(self.trainer, plateau=False)
        self._progress.stepped(self.trainer)

    def _accumulate(self, player: Player, loss: Callable, batch: Any, fake: Any, last: bool) -> bool:
        """Add this micro-batch to ``player``'s window; return whether that fills it."""
        if player.optimizer is None:
            raise RuntimeError(f"{type(self).__name__}.on_train_start must call super().on_train_start()")
        player.open(self.current_epoch)
        closes = player.closes(last)
        with self._turn(player, sync=closes):
            losses = loss(batch, fake)
            if losses is not None:
                player.accumulate(named_terms(losses, player.name), self._backward)
        if losses is None and player.position:
            raise ValueError(f"{player.name}_loss returned None inside an open window of {player.name} updates")
        return closes and losses is not None

    def _update(self, player: Player) -> bool:
        """Close ``player``'s window. Return whether its weights moved."""
        # The player's own scaler has unscaled its gradient, so the plugin must not.
        with lent_scaler(self.trainer.precision_plugin, None), no_autocast(self.device):
            return player.update(lambda: self._optimizer_step(player))

    def _optimizer_step(self, player: Player) -> None:
        # Every LightningOptimizer.step() counts in trainer.global_step, so only the generator's goes through one.
        if player is self.updates["generator"]:
            self._optimizers()[0].step()
        else:
            assert player.optimizer is not None
            self.trainer.strategy.optimizer_step(player.optimizer, lambda: None)

    def _backward(self, loss: Tensor) -> None:
        with no_autocast(self.device):
            self.manual_backward(loss)

    @contextmanager
    def _turn(self, player: Player, sync: bool) -> Iterator[None]:
        """Freeze the other player, lend ``player``'s loss scaler, and skip DDP's all-reduce unless ``sync``."""
        own = set(player.parameters)
        others = [p for other in self.updates.values() for p in other.parameters if p not in own]
        strategy = self.trainer.strategy
        with ExitStack() as stack:
            stack.enter_context(frozen(others))
            stack.enter_context(lent_scaler(self.trainer.precision_plugin, player.scaler))
            if isinstance(strategy, ParallelStrategy) and not sync:
                stack.enter_context(strategy.block_backward_sync())
            yield

    def _log_updates(self) -> None:
        """Log both players' last reports, once per generator update, at that update's number."""
        metrics = {k: v for player in self.updates.values() for k, v in player.metrics().items()}
        bar = self.trainer.progress_bar_callback is not None  # Lightning reads what the bar shows at every update
        for name, value in metrics.items():
            self.log(name, value, prog_bar=bar and name.endswith("/loss"), logger=False)
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and self.global_step % every == 0:
            scalars = {name: float(value) for name, value in metrics.items()} | {"epoch": self.current_epoch}
            for logger in self.trainer.loggers:
                logger.log_metrics(scalars, step=self.global_step)
                logger.save()
            for player in self.updates.values():
                player.logged()
                player.check_weights()

    def on_validation_start(self) -> None:
        """Note that metrics of validation are known from here on."""
        self.schedules.validated |= not self.trainer.sanity_checking

    def on_validation_model_zero_grad(self) -> None:
        """Keep the gradients of open windows through validation; closed windows have none."""

    def configure_callbacks(self) -> list[Callback]:
        """Refuse what Lightning offers to one optimizer alone: the first hook of a fit, before data are read."""
        if self.trainer.state.fn == TrainerFn.FITTING:
            self.refuse_unfit(self.trainer)
        return []

    def refuse_unfit(self, trainer: Trainer, options: str = "") -> None:
        """Raise an error that names what ``trainer`` has that cannot train this module, and what to use instead.

        Args:
            trainer: it need not be attached yet.
            options: what the names of this module's options begin with: ``"model."`` on the command line.

        Raises:
            MisconfigurationException: there is something.
        """
        refuse_one_optimizer_techniques(trainer, options)

    def on_micro_batch_end(self) -> None:
        """Take note: between here and the next training step, checkpoints hold the state that is reached now."""
        self._progress.micro_batch_ended(self.trainer)

    def on_fetch_start(self) -> None:
        """Take note that the next micro-batch is being fetched."""
        self._progress.fetches()

    def setup(self, stage: str) -> None:
        """Have checkpoints written whole, log at the generator's updates, and give DDP the flag that two players need.

        A strategy that cannot train two players is refused.
        """
        strategy = self.trainer.strategy
        if mistake := strategy_mistake(strategy):
            raise MisconfigurationException(mistake)
        if isinstance(strategy, DDPStrategy):
            ddp_options(strategy).setdefault("find_unused_parameters", True)
        if type(strategy.checkpoint_io) is TorchCheckpointIO:  # the user has chosen no other
            strategy.checkpoint_io = WholeCheckpointIO()
        log_at_updates(self.trainer)

    def on_fit_start(self) -> None:
        """Refuse optimizers that cannot go on from a checkpoint's, before its states are loaded into them."""
        if self._resumed is not None:
            check_optimizers(self._resumed, dict(zip(self.updates, self.trainer.optimizers, strict=False)))

    def on_train_start(self) -> None:
        """Bind each player to its optimizer and, after a resume, put its open window back."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for player, optimizer in zip(self.updates.values(), self._optimizers(), strict=True):
            player.bind(optimizer.optimizer, scaler)
            if self.global_step == 0:
                player.reset()
        self.schedules.check_lengths(self.trainer)
        resumed, self._resumed = self._resumed, None
        if resumed is None and self.global_step == 0:
            set_apart(self.global_rank)
            self._kept = Kept()
        if resumed is not None:
            restore(self.trainer, self.updates, self.schedules, resumed)

    def on_train_epoch_end(self) -> None:
        """Step the plateau schedulers that watch an epoch's metrics."""
        if self.trainer.is_last_batch:  # not if max_steps ends the run within an epoch
            self.schedules.after_epoch(self.trainer, plateau=True)
            self._progress.epoch_ended()

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what callbacks keep beside the weights and, once training has begun, what resuming at this point needs.

        A callback's ``on_save_weights(trainer, module, checkpoint)`` also runs for checkpoints of weights only, for
        which Lightning calls no callback.
        """
        trainer = attached_trainer(self)
        self._kept.add_to(checkpoint)
        for callback in trainer.callbacks if trainer else ():  # type: ignore[attr-defined]
            if hasattr(callback, "on_save_weights"):
                callback.on_save_weights(trainer, self, checkpoint)
        if self._resumed is not None:  # nothing has been done since
            checkpoint["gan"] = {name: value for name, value in self._resumed.items() if name != "groups"}
        elif all(player.optimizer for player in self.updates.values()):
            for player in self.updates.values():
                player.check_weights()  # otherwise a good checkpoint would be overwritten
            checkpoint["gan"] = capture(self.trainer, self.updates, self.schedules, self._progress)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep what ``on_train_start`` restores, if this is for training.

        Raises:
            ValueError: training cannot go on from ``checkpoint``, because parts of it are missing; names them.
        """
        trainer = attached_trainer(self)
        if trainer is not None and trainer.state.fn == TrainerFn.FITTING:
            check_complete(checkpoint, self.updates)
            groups = [state["param_groups"] for state in checkpoint["optimizer_states"]]
            saved = checkpoint.get("gan")
            self._resumed = {**saved, "groups": groups} if saved else None
            self._progress.resumed(replay(trainer, checkpoint) if saved else Position())
            self._kept.take_from(trainer, checkpoint)

    def _optimizers(self) -> list[LightningOptimizer]:
        optimizers = self.optimizers()
        if not isinstance(optimizers, list) or len(optimizers) != 2:
            raise MisconfigurationException(
                f"{type(self).__name__}.configure_optimizers must return two optimizers: the generator's, then "
                f"the discriminator's"
            )
        return optimizers


def named_terms(losses: Tensor | Mapping[str, Tensor], player: str) -> Mapping[str, Tensor]:
    """Return what ``player``'s loss method returned as named terms, of which ``"loss"`` is one."""
    terms = losses if isinstance(losses, Mapping) else {"loss": losses}
    if "loss" not in terms:
        raise ValueError(f"{player}_loss returned {sorted(terms)}: one term must be named 'loss'")
    return terms


def _detached(fake: Any) -> Any:
    return apply_to_collection(fake, Tensor, Tensor.detach)
