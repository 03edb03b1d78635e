"""Exponential moving average of one player's weights."""

from typing import Literal

import torch
from torch import Tensor

from univnet.common.mistakes import Mistakes
from univnet.gan.averaging.base import Averaging


class ExponentialMovingAverage(Averaging):
    """Keep an exponential moving average of one player's weights: average ← decay · average + (1 − decay) · weights.

    The first weights are copied. The raw weights are never overwritten: the averaged weights are validated
    (``val/…``), saved beside them (``univnet.gan.averaged_weights`` reads them), and returned by ``averaged``. If SWA
    averages the same player, its average is validated instead as soon as there is one.

    Args:
        decay: between 0 and 1.
        player: whose weights to average, of all networks that ``GANModule.networks`` declares for it.
        update_every_n_steps: average the weights after every so many of the player's updates; 0 (with
            ``update_starting_at_epoch``): not after updates.
        update_starting_at_step: skip this many of the player's updates first.
        update_starting_at_epoch: average the weights also at the end of every epoch from this one on, counted from 0;
            ``None``: not at the ends of epochs. For any other rule, override ``should_update``.
        warmup_gamma: γ of the warm-up min(decay, 1 − (1 + t/γ)^−p), where t counts the weights averaged before;
            ``None`` for no warm-up. The larger γ, the slower the warm-up.
        warmup_power: p of the warm-up.
        weights: ``"effective"`` averages the weights that weight norm produces, so that the average is a state dict
            without weight norm; ``"parameters"`` averages weight norm's parameters, g and v.
        use_buffers: also average floating-point buffers, instead of copying them.
        device: the average's device; ``None``: that of the weights.
        use_in_validation: validate (and test) with the averaged weights.
        validate_raw: also validate the raw weights, on the same batches and random numbers, logged as ``val_raw/…``.
            ``validation_step`` then runs twice for each batch, so it should keep no state between calls.
        bn_batches: micro-batches of training data from which the statistics of BatchNorm layers, if there are any,
            are estimated before the average is validated and when training ends.

    Raises:
        MisconfigurationException: if arguments are out of range (it names all of them), or if the module has no
            such player.
    """

    kind = "ema"

    def __init__(
        self,
        decay: float = 0.999,
        player: str = "generator",
        update_every_n_steps: int = 1,
        update_starting_at_step: int = 0,
        update_starting_at_epoch: int | None = None,
        warmup_gamma: float | None = None,
        warmup_power: float = 2 / 3,
        weights: Literal["effective", "parameters"] = "effective",
        use_buffers: bool = False,
        device: torch.device | str | None = None,
        use_in_validation: bool = True,
        validate_raw: bool = False,
        bn_batches: int = 100,
    ) -> None:
        mistakes = Mistakes(self)
        mistakes.unless(0 <= decay <= 1, f"decay must be between 0 and 1, got {decay!r}")
        mistakes.unless(
            update_every_n_steps >= (update_starting_at_epoch is None),
            "update_every_n_steps must be at least 1, or 0 with update_starting_at_epoch, got "
            f"{update_every_n_steps!r}",
        )
        mistakes.unless(
            update_starting_at_step >= 0, f"update_starting_at_step must be at least 0, got {update_starting_at_step!r}"
        )
        mistakes.unless(
            update_starting_at_epoch is None or update_starting_at_epoch >= 0,
            f"update_starting_at_epoch must be at least 0, got {update_starting_at_epoch!r}",
        )
        mistakes.unless(
            warmup_power > 0 and (warmup_gamma is None or warmup_gamma > 0),
            f"warmup_gamma and warmup_power must be positive, got {warmup_gamma!r} and {warmup_power!r}",
        )
        super().__init__(player, weights, use_buffers, device, use_in_validation, validate_raw, bn_batches, mistakes)
        self.decay, self.update_every_n_steps = decay, update_every_n_steps
        self.update_starting_at_step, self.update_starting_at_epoch = update_starting_at_step, update_starting_at_epoch
        self.warmup_gamma, self.warmup_power = warmup_gamma, warmup_power

    def decay_at(self, taken: int) -> float:
        """Return the decay after ``taken`` weights were averaged."""
        if self.warmup_gamma is None:
            return self.decay
        return min(self.decay, 1 - (1 + taken / self.warmup_gamma) ** -self.warmup_power)

    def blend(self, average: list[Tensor], present: list[Tensor]) -> None:
        """Move the average towards the present weights."""
        torch._foreach_lerp_(average, present, 1 - self.decay_at(self.n_averaged))

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Return whether ``update_every_n_steps`` updates were made since the last, or this epoch's end counts."""
        if step_idx is not None:
            since, every = step_idx + 1 - self.update_starting_at_step, self.update_every_n_steps
            return since > 0 and every > 0 and since % every == 0
        first = self.update_starting_at_epoch
        return epoch_idx is not None and first is not None and epoch_idx >= first
