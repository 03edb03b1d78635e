"""What Lightning calls around the training step of two players: set-up, logging, stopping and resuming."""

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch.optim import Optimizer

from univnet.gan.endurance.checkpoint_io import WholeCheckpointIO
from univnet.gan.endurance.kept import Kept
from univnet.gan.endurance.saving import save_as_for_one_player
from univnet.gan.lightning_internals import attached_trainer, ddp_options, log_at_updates
from univnet.gan.play.all_reduce import OwnGradients
from univnet.gan.play.owners import optimizers_of
from univnet.gan.refusals import (
    refuse_no_interval,
    refuse_one_optimizer_techniques,
    strategy_mistake,
    warn_of_idle_hooks,
)
from univnet.gan.resume import Position, Progress, capture, check_complete, check_optimizers, replay, restore
from univnet.gan.rng import set_apart
from univnet.gan.schedules import Schedules
from univnet.gan.updates import Player, Updates


class Hooks(LightningModule):
    """The part of ``GANModule`` that is not the game.

    Attributes:
        updates: each player's counters and settings, by name.
        regularizers: the same for the steps of their own on the regularizers that players have.
        schedules: steps both players' schedulers; a callback that sets a player's rate adds its name to ``held``.
        networks: each player's networks, by attribute; default: the one of the player's name.
    """

    networks: ClassVar[Mapping[str, list[str]]] = {}

    def __init__(self, **settings: Updates) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.updates = {name: Player(name, each) for name, each in settings.items()}
        self.regularizers = {
            name: Player(f"{name}_regularizer", player.settings.of_regularizer())
            for name, player in self.updates.items()
            if player.settings.regularize_every
        }
        self.schedules = Schedules(self.updates)
        self._own_gradients = OwnGradients()
        self._progress = Progress()
        self._kept = Kept()
        self._resumed: dict[str, Any] | None = None
        self._their_optimizers: Any = None

    def __getattr__(self, name: str) -> Any:
        if "_progress" not in vars(self) and (name in _OURS or "_modules" not in vars(self)):
            raise AttributeError(f"{type(self).__name__}.__init__ must call super().__init__() before anything else")
        return super().__getattr__(name)

    @property
    def _everyone(self) -> dict[str, Player]:
        """All that has an optimizer's steps to count, by the names in checkpoints."""
        return self.updates | {player.name: player for player in self.regularizers.values()}

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
        refuse_no_interval(trainer)

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
        save_as_for_one_player(self.trainer)
        if stage == "fit":
            warn_of_idle_hooks(self)
        if stage == "fit" and vars(self).get("configure_optimizers") != self._noted_optimizers:
            self._their_optimizers = vars(self).get("configure_optimizers")
            self.configure_optimizers = self._noted_optimizers  # type: ignore[method-assign]

    def _noted_optimizers(self) -> Any:
        """Return ``configure_optimizers()`` after a look at it, since Lightning drops a scheduler's monitor."""
        del self.configure_optimizers
        if self._their_optimizers is not None:
            self.configure_optimizers = self._their_optimizers  # type: ignore[method-assign]
        configured = self.configure_optimizers()
        if configured is None:
            raise MisconfigurationException(
                f"{type(self).__name__}.configure_optimizers returned None: return optimizers"
            )
        return self.schedules.note(configured)

    def on_fit_start(self) -> None:
        """Tell the players' optimizers apart, before a checkpoint's states are loaded into them.

        Optimizers that cannot go on from that checkpoint are refused.
        """
        optimizers = self._optimizers_of_players()
        if self._resumed is not None:
            check_optimizers(self._resumed, self.trainer.optimizers, optimizers)

    def on_train_start(self) -> None:
        """Bind each player to its optimizers and, after a resume, put its open window back."""
        scaler = getattr(self.trainer.precision_plugin, "scaler", None)
        for name, optimizers in self._optimizers_of_players().items():
            for player in (self.updates[name], self.regularizers.get(name)):
                if player is not None:
                    player.bind(optimizers, scaler)
                    if self.global_step == 0:
                        player.reset()
        self._own_gradients.register(self.trainer.strategy.model)
        self.schedules.check_lengths(self.trainer)
        resumed, self._resumed = self._resumed, None
        if resumed is None and self.global_step == 0:
            set_apart(self.global_rank)
            self._kept = Kept()
        if resumed is not None:
            restore(self.trainer, self._everyone, self.schedules, resumed)

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
        elif all(player.optimizers for player in self._everyone.values()):
            for player in self.updates.values():
                player.check_weights()  # otherwise a good checkpoint would be overwritten
            checkpoint["gan"] = capture(self.trainer, self._everyone, self.schedules, self._progress)

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

    def _optimizers_of_players(self) -> dict[str, list[Optimizer]]:
        return optimizers_of(self, self.updates, self.trainer.optimizers)


_OURS = ("updates", "schedules", "_progress")
