"""Validate a network with other weights than its own."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature

from univnet.gan.averaging.weights import Exchange
from univnet.gan.play.logging import renamed_log
from univnet.gan.rng import rng_state, set_rng_state


class StandIn(Callback):
    """Validates and tests with other weights than the raw ones.

    Args:
        validate_raw: also validate the raw weights, on the same batches and random numbers, logged as ``val_raw/…``.

    Attributes:
        exchange: while the other weights are in the network, swaps them with the raw ones; otherwise ``None``.
    """

    def __init__(self, validate_raw: bool) -> None:
        self.validate_raw = validate_raw
        self.exchange: Exchange | None = None
        self._rng: dict[str, Any] = {}

    def is_used(self, trainer: Trainer) -> bool:
        """Whether there are other weights to validate now."""
        raise NotImplementedError

    def exchange_for(self, pl_module: LightningModule) -> Exchange:
        """Return the exchange that puts the other weights into the network."""
        raise NotImplementedError

    def when_shown(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Prepare the other weights, which are in the network now, for a validation during training."""

    @contextmanager
    def shown(self, pl_module: LightningModule) -> Iterator[None]:
        """Put the other weights into the network inside this context."""
        self._show(pl_module)
        try:
            yield
        finally:
            self._hide()

    def _show(self, pl_module: LightningModule) -> None:
        with torch.inference_mode(False):  # trainer.validate runs in inference mode
            self.exchange = self.exchange_for(pl_module)
            self.exchange()

    def _hide(self) -> None:
        if self.exchange is not None:
            self.exchange.undo()
            self.exchange = None

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the other weights into the network."""
        if self.is_used(trainer):
            self._show(pl_module)
            if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
                self.when_shown(trainer, pl_module)

    def on_validation_batch_start(self, *_: Any) -> None:
        """Save the state of the random numbers, so that the raw weights get the same ones."""
        if self.exchange is not None and self.validate_raw:
            self._rng = rng_state()

    def on_validation_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *where: Any) -> None:
        """Validate the raw weights on the same batch, if ``validate_raw`` is set."""
        if self.exchange is None or not self.validate_raw:
            return
        if not is_param_in_hook_signature(pl_module.validation_step, "batch_idx", min_args=2):
            where = (where[0], *where[2:])
        after = rng_state()
        self.exchange()
        set_rng_state(self._rng)
        try:
            with renamed_log(pl_module, _raw_name):
                trainer.strategy.validation_step(*where)
        finally:
            set_rng_state(after)
            self.exchange()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put the raw weights back."""
        self._hide()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Put the raw weights back before anything is saved."""
        self._hide()

    on_test_start, on_test_end = on_validation_start, on_validation_end


def _raw_name(name: str) -> str:
    """Return ``val_raw/…`` for ``val/…``."""
    return f"val_raw{name.removeprefix('val')}" if name.startswith("val") else f"val_raw/{name}"
