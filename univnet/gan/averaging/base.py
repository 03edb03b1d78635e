"""Averages of one player's weights: kept beside the raw weights, validated, and saved with them.

A checkpoint holds the raw weights in ``state_dict``, as always, and the averages in
``checkpoint["averaged"][player][kind]``: ``weights`` (tensors by name), ``n_averaged`` (how many weights were averaged)
and ``updates`` (the player's update count at the last of them). Checkpoints of weights only hold them too.
``univnet.gan.averaged_weights`` reads them; the callbacks' own state holds the counters that resuming needs.
"""

from typing import Any, ClassVar, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from univnet.common.mistakes import Mistakes
from univnet.gan.averaging.batchnorm import batch_norms, reestimate
from univnet.gan.averaging.checkpoint import KINDS
from univnet.gan.averaging.validation import StandIn
from univnet.gan.averaging.weights import Exchange, Weights
from univnet.gan.play.owners import network_of, networks_of
from univnet.gan.updates import Player


class Averaging(StandIn):
    """The common base of ``StochasticWeightAveraging`` and ``ExponentialMovingAverage``.

    Attributes:
        kind: the average's name in checkpoints.
        n_averaged: how many weights were averaged.
    """

    kind: ClassVar[str]

    def __init__(
        self,
        player: str,
        weights: Literal["effective", "parameters"],
        use_buffers: bool,
        device: torch.device | str | None,
        use_in_validation: bool,
        validate_raw: bool,
        bn_batches: int,
        mistakes: Mistakes,
    ) -> None:
        mistakes.unless(
            weights in ("effective", "parameters"), f"weights must be 'effective' or 'parameters', got {weights!r}"
        )
        mistakes.unless(
            device is None or isinstance(device, torch.device | str),
            f"device must be a torch.device or a str, got {device!r}",
        )
        mistakes.unless(bn_batches >= 1, f"bn_batches must be at least 1, got {bn_batches!r}")
        mistakes.raise_all(MisconfigurationException)
        super().__init__(validate_raw)
        self.player, self.weights, self.use_buffers = player, weights, use_buffers
        self.use_in_validation, self.bn_batches = use_in_validation, bn_batches
        self._device, self._batch_norm = device, False
        self._weights: Weights | None = None
        self._loaded = False
        self._steps_before = 0
        self.reset()

    def reset(self) -> None:
        """Forget the average."""
        self.n_averaged = self._updates = 0
        self._average: dict[str, Tensor] = {}
        self._stale = True  # BatchNorm's statistics do not fit the average
        self._running: dict[str, Any] | None = None  # the average without the run's last weights, if it is resumed

    @property
    def averaged(self) -> dict[str, Tensor]:
        """The averaged weights and buffers (not copies), by their names in the network's state dict.

        Raises:
            ValueError: if no weights were averaged yet.
        """
        if not self.n_averaged:
            raise ValueError(f"{type(self).__name__} of the {self.player} has no updates yet: no weights are averaged")
        return self._average

    def apply(self, pl_module: LightningModule) -> None:
        """Replace the raw weights by the averaged ones, permanently.

        Raises:
            ValueError: if no weights were averaged yet.
        """
        values = self.averaged
        self._prepared(pl_module).exchange({name: value.clone() for name, value in values.items()})()

    def on_save_weights(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the average to ``checkpoint``, and make sure that its ``state_dict`` holds the raw weights.

        ``GANModule`` calls it for every checkpoint, also for checkpoints of weights only.
        """
        averages = checkpoint.setdefault("averaged", {}).setdefault(self.player, {})
        averages[self.kind] = {"n_averaged": self.n_averaged, "updates": self._updates, "weights": self._average}
        if self.exchange is not None:
            self.exchange()
            for name, network in networks_of(pl_module, self.player).items():
                checkpoint["state_dict"] |= network.state_dict(prefix=f"{name}.")
            self.exchange()

    # What a subclass decides

    def blend(self, average: list[Tensor], present: list[Tensor]) -> None:
        """Add the ``present`` weights to ``average``, in place; ``n_averaged`` ≥ 1 counts those before them."""
        raise NotImplementedError

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether the present weights are averaged; your subclass may decide otherwise.

        It is asked after every update of the player and at every epoch's end, as Lightning's ``WeightAveraging`` asks.

        Args:
            step_idx: the number of the player's update just made, from 0; ``None`` at an epoch's end.
            epoch_idx: the number of the epoch that ends, from 0; ``None`` after an update.
        """
        raise NotImplementedError

    def after_micro_batch(self, trainer: Trainer, player: Player, made: int) -> None:
        """Average the weights if it is time; ``made``: the player's updates in this micro-batch."""
        if any(self.should_update(step_idx=index) for index in range(player.steps - made, player.steps)):
            self.take(player)
        if trainer.is_last_batch and self.should_update(epoch_idx=trainer.current_epoch):
            self.take(player)

    def wants_last(self, player: Player) -> bool:
        """Whether the weights at the end of the run are averaged in any case."""
        return False

    # Averaging

    @torch.no_grad()
    def take(self, player: Player) -> None:
        """Add the present weights to the average; buffers that are not averaged are copied."""
        assert self._weights is not None
        present = self._weights.read()
        if not self.n_averaged:
            self._average = self._placed({name: value.clone() for name, value in present.items()})
        else:
            blended = [name for name, value in present.items() if self._blends(name, value)]
            average = [self._average[name] for name in blended]
            moved = [present[name].to(ours.device, ours.dtype) for name, ours in zip(blended, average, strict=True)]
            self.blend(average, moved)
            for name in present.keys() - set(blended):
                self._average[name].copy_(present[name])
        self.n_averaged += 1
        self._updates, self._stale = player.steps, True

    def _blends(self, name: str, value: Tensor) -> bool:
        assert self._weights is not None
        inexact = value.is_floating_point() or value.is_complex()
        return inexact and (self.use_buffers or name not in self._weights.buffers)

    def _placed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Return the weights on the average's device; half precision, which loses small changes, becomes single."""
        half = (torch.float16, torch.bfloat16)
        return {
            name: value.to(self._average_device, torch.float32 if value.dtype in half else value.dtype)
            for name, value in weights.items()
        }

    def _finish(self, trainer: Trainer, pl_module: Any) -> None:
        """Average the run's last weights (``_go_on`` reverts that) and bring BatchNorm up to date."""
        player = pl_module.updates[self.player]
        if self.wants_last(player) and self._updates != player.steps:
            before = {name: value.clone() for name, value in self._average.items()}
            running = {"n_averaged": self.n_averaged, "updates": self._updates, "stale": self._stale, "weights": before}
            self.take(player)
            self._running = running
        if self.n_averaged and self._batch_norm and self._stale:
            with self.shown(pl_module):
                self.when_shown(trainer, pl_module)

    def _go_on(self) -> None:
        """Remove the weights that ``_finish`` averaged: the run goes on, so they were not its last."""
        if self._running is not None:
            running, self._running = self._running, None
            self.n_averaged, self._updates, self._stale = running["n_averaged"], running["updates"], running["stale"]
            self._average = self._placed(running["weights"])

    # Use

    def _prepared(self, pl_module: Any) -> Weights:
        """Find the player's network, and move a loaded average to its device."""
        if self._weights is not None:
            return self._weights
        updates, network = getattr(pl_module, "updates", {}), network_of(pl_module, self.player)
        if self.player not in updates or network is None:
            raise MisconfigurationException(
                f"{type(self).__name__}: {type(pl_module).__name__} has no player {self.player!r} with a network of "
                f"that name; its players are {', '.join(updates) or 'none (it is not a GANModule)'}"
            )
        self._weights = Weights(network, self.weights == "effective")
        self._batch_norm = bool(batch_norms(network))
        self._average_device = torch.device(self._device or pl_module.device)
        present = self._weights.read()
        ours = {name: value.shape for name, value in self._average.items()}
        if self._average and ours != {name: value.shape for name, value in present.items()}:
            raise MisconfigurationException(
                f"{type(self).__name__}: the checkpoint's average is of another network, or was made with "
                f"weights={'parameters' if self.weights == 'effective' else 'effective'!r}"
            )
        self._average = self._placed(self._average)
        return self._weights

    def exchange_for(self, pl_module: LightningModule) -> Exchange:
        """Return the exchange that puts the averaged weights into the network."""
        return self._prepared(pl_module).exchange(self._average)

    def is_used(self, trainer: Trainer) -> bool:
        """Whether this average of its player is the validated one, which ``averaged_weights`` returns."""
        averages = [
            callback
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, Averaging) and callback.player == self.player
        ]
        ready = [average for average in averages if average.use_in_validation and average.n_averaged]
        return bool(ready) and self is min(ready, key=lambda average: KINDS.index(average.kind))

    def when_shown(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Estimate BatchNorm statistics for the averaged weights, which are in the network now."""
        if self._weights is None or not (self._batch_norm and self._stale):
            return
        reestimate(trainer, pl_module, self.player, self.bn_batches)
        estimated = self._weights.read()
        for name in self._weights.buffers:
            self._average[name].copy_(estimated[name])
        self._stale = False

    # Lightning's hooks

    @property
    def state_key(self) -> str:
        """A key for each kind of average and player."""
        return self._generate_state_key(player=self.player)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the weights themselves are in ``checkpoint["averaged"]``."""
        return {"stale": self._stale, "running": self._running}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        self._stale, self._running, self._loaded = state_dict["stale"], state_dict["running"], True

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Replace the average by the checkpoint's, or by none."""
        self.reset()
        saved = checkpoint.get("averaged", {}).get(self.player, {}).get(self.kind)
        if saved is not None:
            self.n_averaged, self._updates, self._average = saved["n_averaged"], saved["updates"], saved["weights"]

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Forget the network, and move before all other callbacks, so that the checkpoints they save are up to date."""
        self._weights, self._loaded = None, False
        callbacks = trainer.callbacks  # type: ignore[attr-defined]
        trainer.callbacks = sorted(callbacks, key=lambda each: not isinstance(each, Averaging))  # type: ignore

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Refuse a module without the player."""
        self._prepared(pl_module)

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Forget the average if training starts from the beginning."""
        if trainer.global_step == 0 and not self._loaded:
            self.reset()

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Note how many updates the player has made."""
        self._go_on()
        self._steps_before = pl_module.updates[self.player].steps

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        """Average the weights, before any checkpoint is written."""
        player = pl_module.updates[self.player]
        self.after_micro_batch(trainer, player, player.steps - self._steps_before)
        if _is_last_batch_of_run(trainer):
            self._finish(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Average the last weights of a run that was stopped."""
        self._finish(trainer, pl_module)


def _is_last_batch_of_run(trainer: Trainer) -> bool:
    """Whether the run ends after this micro-batch, as far as is known."""
    done = trainer.should_stop or 0 < trainer.max_steps <= trainer.global_step
    epochs = trainer.max_epochs
    return done or (trainer.is_last_batch and epochs is not None and 0 < epochs <= trainer.current_epoch + 1)
