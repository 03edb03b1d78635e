"""Stochastic weight averaging of one player (Izmailov et al. 2018, arXiv 1803.05407)."""

import math
from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_info
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.optim.swa_utils import get_swa_avg_fn, get_swa_multi_avg_fn

from univnet.common.mistakes import Mistakes
from univnet.gan.averaging.base import Averaging
from univnet.gan.play.owners import optimizers_of
from univnet.gan.updates import Player

_STATE = ("_begun", "_begun_at", "_annealed", "_epoch")


class StochasticWeightAveraging(Averaging):
    """Average one player's weights over the last part of training, at its own learning rate (arXiv 1803.05407).

    When SWA begins, the player's schedulers pause, its learning rate anneals to ``swa_lrs`` and stays there, and its
    weights are averaged at the end of every epoch, or after every so many updates. The weights at the end of the run
    are always included (whether ``max_epochs``, ``max_steps``, ``max_time`` or early stopping ends it), unless weights
    are averaged at the starts of epochs; if the run is resumed, they are removed again. After an exception or Ctrl-C
    the average stays as it is.

    The raw weights are never overwritten: the averaged weights are validated (``val/…``), saved beside them
    (``univnet.gan.averaged_weights`` reads them), and returned by ``averaged``.

    Args:
        swa_lrs: the final learning rate, positive; a float, or a list with one for each parameter group.
        player: whose weights to average, of all networks that ``GANModule.networks`` declares for it.
        swa_epoch_start: when SWA begins. An int is an epoch, counted from 1 (as in Lightning). A float is a fraction of
            training: epoch ``int(fraction · max_epochs)``, counted from 1, or, if ``max_steps`` ends training first,
            after ``int(fraction · max_steps)`` generator updates.
        annealing_epochs: epochs over which the rate anneals; 0: at once.
        annealing_strategy: ``"cos"`` or ``"linear"``.
        avg_fn: (average, weight, number averaged before) → new average, for each tensor; ``None``: the mean.
        device: the average's device; ``None``: that of the weights.
        swa_update_start: begin after this many of the player's updates; overrides ``swa_epoch_start``.
        annealing_updates: anneal over this many of the player's updates; overrides ``annealing_epochs``.
        every_n_updates: average the weights after every so many of the player's updates; overrides ``average_at``.
            For runs of few epochs.
        update_starting_at_epoch: average the weights at the end of every epoch from this one on, counted from 0 (also
            with ``every_n_updates``), if SWA has begun by then: so the rate can anneal first. ``None``: from the
            beginning of SWA on. For any other rule, override ``should_update``, which is asked once SWA has begun.
        average_at: ``"epoch_end"``, or ``"epoch_start"`` as in Lightning, which never includes the final weights.
        weights: ``"effective"`` averages the weights that weight norm produces, so that the average is a state dict
            without weight norm; ``"parameters"`` averages weight norm's parameters, g and v.
        use_buffers: also average floating-point buffers, instead of copying them.
        use_in_validation: validate (and test) with the averaged weights.
        validate_raw: also validate the raw weights, on the same batches and random numbers, logged as ``val_raw/…``.
            ``validation_step`` then runs twice for each batch, so it should keep no state between calls.
        bn_batches: micro-batches of training data from which the statistics of BatchNorm layers, if there are any,
            are estimated before the average is validated and when training ends.

    Raises:
        MisconfigurationException: if arguments are out of range (it names all of them), the module has no such player,
            or ``swa_epoch_start`` is a fraction and training has no end.
    """

    kind = "swa"

    def __init__(
        self,
        swa_lrs: float | list[float],
        player: str = "generator",
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: Literal["cos", "linear"] = "cos",
        avg_fn: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
        device: torch.device | str | None = "cpu",
        swa_update_start: int | None = None,
        annealing_updates: int | None = None,
        every_n_updates: int | None = None,
        update_starting_at_epoch: int | None = None,
        average_at: Literal["epoch_end", "epoch_start"] = "epoch_end",
        weights: Literal["effective", "parameters"] = "effective",
        use_buffers: bool = False,
        use_in_validation: bool = True,
        validate_raw: bool = False,
        bn_batches: int = 100,
    ) -> None:
        mistakes = Mistakes(self)
        rates = swa_lrs if isinstance(swa_lrs, list) else [swa_lrs]
        mistakes.unless(
            bool(rates) and all(isinstance(rate, float) and 0 < rate < math.inf for rate in rates),
            f"swa_lrs must be a positive float, or a list of positive floats, got {swa_lrs!r}",
        )
        start = swa_epoch_start
        mistakes.unless(
            start >= 1 if isinstance(start, int) else 0 <= start <= 1,
            f"swa_epoch_start must be a >0 integer or a float between 0 and 1, got {start!r}",
        )
        mistakes.unless(
            annealing_strategy in ("cos", "linear"),
            f"annealing_strategy must be 'cos' or 'linear', got {annealing_strategy!r}",
        )
        mistakes.unless(avg_fn is None or callable(avg_fn), "avg_fn must be callable")
        mistakes.unless(
            average_at in ("epoch_end", "epoch_start"),
            f"average_at must be 'epoch_end' or 'epoch_start', got {average_at!r}",
        )
        for name, value, least in (
            ("annealing_epochs", annealing_epochs, 0),
            ("annealing_updates", annealing_updates, 0),
            ("swa_update_start", swa_update_start, 0),
            ("every_n_updates", every_n_updates, 1),
            ("update_starting_at_epoch", update_starting_at_epoch, 0),
        ):
            mistakes.unless(value is None or value >= least, f"{name} must be at least {least}, got {value!r}")
        mistakes.unless(
            update_starting_at_epoch is None or average_at != "epoch_start",
            "update_starting_at_epoch is about the ends of epochs, so average_at cannot be 'epoch_start'",
        )
        super().__init__(player, weights, use_buffers, device, use_in_validation, validate_raw, bn_batches, mistakes)
        self.swa_lrs, self.swa_epoch_start, self.swa_update_start = swa_lrs, swa_epoch_start, swa_update_start
        self.every_n_updates, self.average_at, self.avg_fn = every_n_updates, average_at, avg_fn
        self.annealing_epochs, self.annealing_updates = annealing_epochs, annealing_updates
        self.annealing_strategy, self.update_starting_at_epoch = annealing_strategy, update_starting_at_epoch
        self._start: tuple[Literal["epoch", "step", "update"], int] = "epoch", 0

    def reset(self) -> None:
        """Forget the average, and that SWA has begun."""
        super().reset()
        self._begun = False
        self._begun_at = self._annealed = 0  # the first in updates, the second in epochs or updates
        self._epoch = -1  # the last one at whose start weights were averaged

    def blend(self, average: list[Tensor], present: list[Tensor]) -> None:
        """Add the present weights to the mean."""
        if self.avg_fn is None and average and average[0].device.type != "cpu":
            get_swa_multi_avg_fn()(average, present, self.n_averaged)
            return
        fn, taken = self.avg_fn or get_swa_avg_fn(), torch.tensor(self.n_averaged)
        for ours, weight in zip(average, present, strict=True):
            ours.copy_(fn(ours, weight, taken.to(ours.device)))

    def wants_last(self, player: Player) -> bool:
        """Whether SWA has begun, unless weights are averaged at the starts of epochs, as in Lightning."""
        return self._begun and (self.every_n_updates is not None or self.average_at == "epoch_end")

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether this update or this epoch's end is one of those at which SWA averages."""
        if step_idx is not None:
            return self.every_n_updates is not None and (step_idx + 1 - self._begun_at) % self.every_n_updates == 0
        if self.update_starting_at_epoch is not None:
            return epoch_idx is not None and epoch_idx >= self.update_starting_at_epoch
        return self.every_n_updates is None and self.average_at == "epoch_end"

    def after_micro_batch(self, trainer: Trainer, player: Player, made: int) -> None:
        """Anneal the rate and average the weights, after an update or at an epoch's end."""
        if not self._begun:
            return
        for _ in range(int(trainer.is_last_batch) if self.annealing_updates is None else made):
            self._anneal(player)
        super().after_micro_batch(trainer, player, made)

    def state_dict(self) -> dict[str, Any]:
        """Return the counters; the weights themselves are in ``checkpoint["averaged"]``."""
        return super().state_dict() | {key: getattr(self, key) for key in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what ``state_dict`` returned."""
        super().load_state_dict(state_dict)
        for key in _STATE:
            setattr(self, key, state_dict[key])

    def on_train_start(self, trainer: Trainer, pl_module: Any) -> None:
        """Find out when to begin; if SWA has begun, keep the schedulers paused."""
        super().on_train_start(trainer, pl_module)
        optimizers = optimizers_of(pl_module, pl_module.updates, trainer.optimizers)[self.player]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        if isinstance(self.swa_lrs, list) and len(self.swa_lrs) != len(groups):
            raise MisconfigurationException(
                f"swa_lrs has {len(self.swa_lrs)} rates, but the {self.player}'s optimizer {len(groups)} groups"
            )
        self._start = self._find_start(trainer, pl_module)
        if self._begun:
            pl_module.schedules.held.add(self.player)

    def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        """Begin when it is time; average the weights at an epoch's start with ``average_at="epoch_start"``."""
        super().on_train_batch_start(trainer, pl_module, batch, batch_idx)
        player, epoch = pl_module.updates[self.player], trainer.current_epoch
        unit, start = self._start
        if not self._begun and {"epoch": epoch, "step": trainer.global_step, "update": player.steps}[unit] >= start:
            self._begin(player, pl_module)
        at_start = self.average_at == "epoch_start" and self.every_n_updates is None
        if self._begun and at_start and batch_idx == 0 and epoch > self._epoch:
            self._epoch = epoch
            self.take(player)

    def teardown(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
        """Let the schedulers set the rate again."""
        if stage == "fit":
            pl_module.schedules.held.discard(self.player)

    def _find_start(self, trainer: Trainer, pl_module: Any) -> tuple[Literal["epoch", "step", "update"], int]:
        if self.swa_update_start is not None:
            return "update", self.swa_update_start
        start, epochs = self.swa_epoch_start, trainer.max_epochs
        if isinstance(start, float):
            if 0 < trainer.max_steps <= _updates(trainer, pl_module.updates["generator"]):
                return "step", int(start * trainer.max_steps)
            if epochs is None or epochs < 0:
                raise MisconfigurationException(
                    "swa_epoch_start as a fraction needs an end of training: set max_epochs or max_steps, or give "
                    "an epoch, or set swa_update_start"
                )
            start = int(start * epochs)
        return "epoch", max(start - 1, 0)

    def _begin(self, player: Player, pl_module: Any) -> None:
        rank_zero_info(f"SWA of the {player.name} begins after its update {player.steps}")
        self._begun, self._begun_at = True, player.steps
        pl_module.schedules.held.add(player.name)
        if self._length == 0:
            self._anneal(player)

    @property
    def _length(self) -> int:
        return self.annealing_epochs if self.annealing_updates is None else self.annealing_updates

    def _anneal(self, player: Player) -> None:
        """Anneal the rate by one epoch or update, with the recurrence of torch's ``SWALR``."""
        before, now = (self._progress(self._annealed + step) for step in (0, 1))
        self._annealed += 1
        groups = player.groups
        finals = self.swa_lrs if isinstance(self.swa_lrs, list) else [self.swa_lrs] * len(groups)
        for final, group in zip(finals, groups, strict=True):
            rate = group["lr"]
            first = final if before == 1 else (rate - before * final) / (1 - before)
            rate_now = final * now + first * (1 - now)
            if isinstance(rate, Tensor):
                rate.fill_(rate_now)
            else:
                group["lr"] = rate_now

    def _progress(self, step: int) -> float:
        """Return the annealed fraction, from 0 to 1, after ``step`` epochs or updates."""
        t = max(0, min(1, step / max(1, self._length)))
        return (1 - math.cos(math.pi * t)) / 2 if self.annealing_strategy == "cos" else t


def _updates(trainer: Trainer, player: Player) -> float:
    """Return the updates that ``player`` makes in ``max_epochs``."""
    batches, epochs = trainer.fit_loop.max_batches, trainer.max_epochs
    if epochs is None or epochs < 0 or batches == math.inf:
        return math.inf
    return sum(math.ceil(batches / player.settings.accumulate_at(epoch)) for epoch in range(epochs))
