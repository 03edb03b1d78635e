"""A LightningModule for two players: the whole training step."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, get_args

import torch
from lightning.pytorch.strategies import ParallelStrategy
from torch import Tensor

from univnet.gan.hooks import Hooks
from univnet.gan.lightning_internals import lent_scaler
from univnet.gan.play.rows import log_alone, log_updates
from univnet.gan.play.terms import Losses, detached, loss_terms, named_terms
from univnet.gan.play.turns import Order, turns_of
from univnet.gan.precision import no_autocast
from univnet.gan.updates import NonFiniteError, Player, Updates, frozen, mean_over_ranks

__all__ = ["GANModule", "Losses", "Order", "named_terms"]


class GANModule(Hooks):
    """Train a generator against a discriminator, each with its own accumulation, clipping, schedule and guard.

    Subclass it and define ``generate``, ``generator_loss``, ``discriminator_loss``, and ``configure_optimizers``, which
    returns an optimizer for each player (the generator's first, unless ``networks`` or the attributes ``generator`` and
    ``discriminator`` tell them apart; schedulers in any of Lightning's forms, ``interval: step`` counting that player's
    updates). A subclass that overrides ``configure_callbacks``, ``setup``, ``on_fit_start``, ``on_train_start``,
    ``on_train_epoch_end``, ``on_validation_start``, ``on_save_checkpoint`` or ``on_load_checkpoint`` calls its
    ``super()``.

    ``trainer.global_step``, ``max_steps``, ``every_n_train_steps`` and the loggers' axis count the generator's
    updates; ``module.updates["discriminator"].steps`` and ``.micro_batches`` count the rest.

    Args:
        generator_updates: how the generator's gradients become updates.
        discriminator_updates: the same for the discriminator.
        order: the order of play on a micro-batch. ``"simultaneous"``: both losses see the weights from before either
            update. ``"generator_first"``, ``"discriminator_first"``: the second player's loss follows the first's
            update, if its window closes there, and sees its new weights.
        fresh_fakes: call ``generate`` again for the second player; otherwise it gets the fakes of the first.

    Attributes:
        watched: for each player, the logged term that a learning-rate range test watches.
        playing: the names of the players that play on the present micro-batch, in their order.

    Raises:
        ValueError: there is no such order, or ``repeat`` of a player's ``Updates`` has none.
    """

    watched: ClassVar[Mapping[str, str]] = {"generator": "generator/loss", "discriminator": "discriminator/loss"}

    def __init__(
        self,
        generator_updates: Updates = Updates(),
        discriminator_updates: Updates = Updates(),
        order: Order = "simultaneous",
        fresh_fakes: bool = False,
    ) -> None:
        super().__init__(generator=generator_updates or Updates(), discriminator=discriminator_updates or Updates())
        if order not in get_args(Order):
            raise ValueError(f"order must be one of {', '.join(get_args(Order))}, got {order!r}")
        for name, player in self.updates.items():
            if player.settings.repeat > 1 and order == "simultaneous":
                raise ValueError(f"{name}_updates.repeat needs an order of play: simultaneous players move once each")
        self.order, self.fresh_fakes = order, fresh_fakes
        self.playing: tuple[str, ...] = tuple(self.updates)

    def generate(self, batch: Any) -> Any:
        """Return the generator's output for ``batch``: a tensor or nested tensors.

        Runs once per micro-batch (unless ``fresh_fakes`` or ``repeat`` ask for more), without gradient if the
        generator does not play on it.
        """
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

    def generator_regularizer(self, batch: Any, fake: Any) -> Losses:
        """Return the loss of the generator's steps on its regularizer (``Updates(regularize_every=…)``).

        ``fake`` is detached: what the regularizer differentiates it generates itself. Other than a term of
        ``generator_loss``, it makes a step of its own, which follows an update.
        """
        raise NotImplementedError(f"{type(self).__name__} must define generator_regularizer(batch, fake)")

    def discriminator_regularizer(self, batch: Any, fake: Any) -> Losses:
        """Return the loss of the discriminator's steps on its regularizer, such as R1."""
        raise NotImplementedError(f"{type(self).__name__} must define discriminator_regularizer(batch, fake)")

    def on_batch_size_trial(self) -> None:
        """Begin at once what normally begins late in training: the batch-size finder calls this on each copy it tries.

        A batch size must fit for the whole training, so override this if a player is not trained at first.
        """

    @property
    def one_forward_serves_both(self) -> bool:
        """Whether both players' losses see the same fakes and the same discriminator on the present micro-batch."""
        return len(self.playing) == 2 and not self.fresh_fakes and self.order != "discriminator_first"

    def training_step(self, batch: Any, batch_idx: int) -> None:
        """Give each player that plays its turn: its loss, its gradient and, where that fills its window, its update.

        Both losses of simultaneous players come before either update; the generator has its turn first, so that its
        graph is free before the discriminator builds one of its own.
        """
        last, players = self.trainer.is_last_batch, list(self.updates.values())
        playing = [player for player in players if player.plays()]
        self.playing = tuple(player.name for player in playing)
        fake, full, moved = None, [], []
        for turn in turns_of(playing, self.order, self.fresh_fakes):
            if turn.generates:
                with torch.set_grad_enabled(turn.with_gradient):
                    fake = self.generate(batch)
            if self._accumulate(turn.player, batch, fake, last):
                full.append(turn.player)
            if turn.moves:
                moved += self._move(full, batch, fake)
                full = []
        if last:  # windows of players that do not play on the epoch's last micro-batch close with it
            left = [player for player in players if player.position]
            mean_over_ranks(self.trainer, left)
            moved += self._move(left, batch, fake)
        self._log_moves(moved)
        if last:
            self.schedules.after_epoch(self.trainer, plateau=False)
        self._progress.stepped(self.trainer)

    def _accumulate(self, player: Player, batch: Any, fake: Any, last: bool) -> bool:
        """Add this micro-batch to ``player``'s window; return whether that fills it."""
        if not player.optimizers:
            raise RuntimeError(f"{type(self).__name__}.on_train_start must call super().on_train_start()")
        player.open(self.current_epoch)
        closes = player.closes(last)
        with self._turn(player, player, sync=closes):
            generator = player is self.updates["generator"]
            losses = (self.generator_loss if generator else self.discriminator_loss)(
                batch, fake if generator else detached(fake)
            )
            player.resting = losses is None
            if losses is not None:
                player.accumulate(loss_terms(losses, player.name), self._backward)
        if losses is None and player.position:
            raise ValueError(f"{player.name}_loss returned None inside an open window of {player.name} updates")
        return closes and losses is not None

    def _move(self, full: list[Player], batch: Any, fake: Any) -> list[Player]:
        """Update the players whose windows are full; return those whose weights moved."""
        moved = [player for player in full if self._update(player, player)]
        self.schedules.after_updates(self.trainer, moved)
        for player in moved:
            if player.regularizes:
                self._regularize(player, batch, fake)
        return moved

    def _regularize(self, player: Player, batch: Any, fake: Any) -> None:
        step = self.regularizers[player.name]
        step.open(self.current_epoch)
        with self._turn(player, step, sync=True):
            losses = getattr(self, step.name)(batch, detached(fake))
            step.accumulate(loss_terms(losses, player.name, step.name), self._backward)
        self._update(player, step)

    def _update(self, player: Player, window: Player) -> bool:
        """Close ``window``, which is ``player``'s own or its regularizer's. Return whether the weights moved."""
        # The player's own scaler has unscaled its gradient, so the plugin must not.
        with lent_scaler(self.trainer.precision_plugin, None), no_autocast(self.device):
            try:
                return window.update(lambda: self._optimizers_step(player, counts=window is self.updates["generator"]))
            except NonFiniteError:
                for each in self.updates.values():
                    each.check_weights()  # if one's weights are gone, it is at fault, whoever noticed first
                raise

    def _optimizers_step(self, player: Player, counts: bool) -> None:
        # Every LightningOptimizer.step() counts in trainer.global_step, so only one of the generator's goes through it.
        for optimizer in player.optimizers:
            if counts:
                next(each for each in self.optimizers() if each.optimizer is optimizer).step()  # type: ignore[union-attr]
                counts = False
            else:
                self.trainer.strategy.optimizer_step(optimizer, lambda: None)

    def _backward(self, loss: Tensor) -> None:
        with no_autocast(self.device):
            self.manual_backward(loss)

    @contextmanager
    def _turn(self, player: Player, window: Player, sync: bool) -> Iterator[None]:
        """Freeze the other player, lend ``window``'s loss scaler, and let DDP average the gradients if ``sync``."""
        own = set(player.parameters)
        others = [p for other in self.updates.values() for p in other.parameters if p not in own]
        strategy = self.trainer.strategy
        with ExitStack() as stack:
            stack.enter_context(frozen(others))
            stack.enter_context(lent_scaler(self.trainer.precision_plugin, window.scaler))
            if isinstance(strategy, ParallelStrategy):
                sent = self._own_gradients.of(player.parameters) if sync else strategy.block_backward_sync()
                stack.enter_context(sent)
            yield

    def _log_moves(self, moved: list[Player]) -> None:
        generator, discriminator = self.updates.values()
        if generator in moved:
            log_updates(self, self._everyone)
        elif discriminator in moved and generator.resting:
            log_alone(self, discriminator)
