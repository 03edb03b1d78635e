"""Exponential moving average of one player's weights."""

from typing import Literal

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from univnet.gan.averaging.base import Averaging
from univnet.gan.updates import Player


class ExponentialMovingAverage(Averaging):
    """Keep an exponential moving average of one player's weights: average ← decay · average + (1 − decay) · weights.

    The first weights taken are copied. The raw weights are never written over: the averaged ones are validated
    (``val/…``), saved beside the raw (:func:`~univnet.gan.averaged_weights`), and at hand as :attr:`averaged`. Where
    SWA averages the same player too, SWA's are validated as soon as there are any.

    Args:
        decay: between 0 and 1.
        player: whose weights; its network is the module's attribute of that name.
        update_every_n_steps: take the weights after every so many of the player's updates.
        update_starting_at_step: leave out the player's first so many updates.
        warmup_gamma: γ of the warm-up min(decay, 1 − (1 + t/γ)^−p), where t counts the weights taken before;
            ``None`` for no warm-up. The larger, the slower.
        warmup_power: p of the warm-up.
        weights: ``"effective"`` averages weight-normed weights as they take effect, so that the average is a state
            dict without weight norm; ``"parameters"`` averages g and v.
        use_buffers: average floating-point buffers too, instead of copying them.
        device: where the average is kept; ``None``: with the weights.
        use_in_validation: validate (and test) with the averaged weights.
        validate_raw: validate the raw weights as well, on the same batches and random numbers, logged as
            ``val_raw/…``. ``validation_step`` then runs twice a batch: it should keep nothing from one to the next.
        bn_batches: micro-batches of training data from which the statistics of BatchNorm layers, if there are any,
            are estimated anew before the average is validated and when training ends.

    Raises:
        MisconfigurationException: naming every argument that is out of range, or a player that the module lacks.
    """

    kind = "ema"

    def __init__(
        self,
        decay: float = 0.999,
        player: str = "generator",
        update_every_n_steps: int = 1,
        update_starting_at_step: int = 0,
        warmup_gamma: float | None = None,
        warmup_power: float = 2 / 3,
        weights: Literal["effective", "parameters"] = "effective",
        use_buffers: bool = False,
        device: torch.device | str | None = None,
        use_in_validation: bool = True,
        validate_raw: bool = False,
        bn_batches: int = 100,
    ) -> None:
        wrong = []
        if not 0 <= decay <= 1:
            wrong.append(f"decay must lie between 0 and 1; got {decay!r}")
        if update_every_n_steps < 1:
            wrong.append(f"update_every_n_steps must be ≥ 1; got {update_every_n_steps!r}")
        if update_starting_at_step < 0:
            wrong.append(f"update_starting_at_step must be ≥ 0; got {update_starting_at_step!r}")
        if warmup_power <= 0 or (warmup_gamma is not None and warmup_gamma <= 0):
            wrong.append(f"warmup_gamma and warmup_power must be positive; got {warmup_gamma!r} and {warmup_power!r}")
        super().__init__(player, weights, use_buffers, device, use_in_validation, validate_raw, bn_batches, wrong)
        self.decay, self.update_every_n_steps, self.update_starting_at_step = (
            decay,
            update_every_n_steps,
            update_starting_at_step,
        )
        self.warmup_gamma, self.warmup_power = warmup_gamma, warmup_power

    def decay_at(self, taken: int) -> float:
        """Return the decay where weights were ``taken`` so often before."""
        if self.warmup_gamma is None:
            return self.decay
        return min(self.decay, 1 - (1 + taken / self.warmup_gamma) ** -self.warmup_power)

    def blend(self, average: list[Tensor], present: list[Tensor]) -> None:
        """Move the average towards the present weights."""
        torch._foreach_lerp_(average, present, 1 - self.decay_at(self.n_averaged))

    def after_micro_batch(self, trainer: Trainer, player: Player, moved: bool) -> None:
        """Take the weights after every so many updates."""
        since = player.steps - self.update_starting_at_step
        if moved and since > 0 and since % self.update_every_n_steps == 0:
            self.take(player)
