"""Evaluate losses and metrics outside a training step: nothing is logged, and random numbers and modes stay."""

import copy
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor
from torch.utils.data import DataLoader

from univnet.gan.lightning_internals import (
    combination_mode,
    on_device,
    training_loaders,
    validation_loaders,
)
from univnet.gan.module import GANModule
from univnet.gan.play.logging import log_instead
from univnet.gan.play.terms import detached, named_terms
from univnet.gan.rng import preserved

Quality = Callable[[Any, Any], Any]


class FixedBatches:
    """A few batches, always the same ones with the same random numbers, to see what training does to a module.

    They are the first ``number`` of the trainer's validation batches, on the module's device.

    Args:
        trainer: it is fitting ``module``.
        module: the module.
        number: how many batches.
        or_training: take training batches if there is nothing to validate on.

    Raises:
        ValueError: if there are no batches.
    """

    def __init__(self, trainer: Trainer, module: GANModule, number: int, or_training: bool = False) -> None:
        self._trainer, self._module = trainer, module
        self._differentiates = False
        with preserved(module):
            module.eval()
            combined = CombinedLoader(validation_loaders(trainer) or [], "sequential")
            batches = [
                (trainer.strategy.batch_to_device(batch), batch_idx, loader)
                for batch, batch_idx, loader in islice(iter(combined), number)
            ]
            if not batches and or_training:
                batches = [(batch, i, 0) for i, batch in enumerate(fresh_training_batches(trainer, module, number))]
            self._batches: list[tuple[Any, int, int]] = batches
        if not batches:
            raise ValueError(f"validation_batches={number}, but there is nothing to validate on")

    def loss(self, term: str) -> Tensor:
        """Return the mean of ``term``, such as ``generator/stft``, over the batches for which it is not ``None``.

        Raises:
            ValueError: if no player's loss has such a term.
        """
        player, _, name = term.partition("/")
        if player not in self._module.updates:
            raise ValueError(f"monitor {term!r} must be a term of a player's loss, such as generator/loss")

        def one(batch: Any) -> Tensor | None:
            fake = self._module.generate(batch)
            losses = getattr(self._module, f"{player}_loss")(batch, fake if player == "generator" else detached(fake))
            if losses is None:
                return None
            terms = named_terms(losses, player)
            if name not in terms:
                names = ", ".join(f"{player}/{each}" for each in sorted(terms))
                raise ValueError(f"monitor {term!r} is no term of a validation batch's loss; name one of {names}")
            return terms[name].detach()

        return self._mean(lambda: [one(batch) for batch, *_ in self._batches])

    def quality(self, metric: Quality) -> Tensor:
        """Return the mean of ``metric(module, batch)`` over the batches."""
        return self._mean(lambda: [torch.as_tensor(metric(self._module, batch)) for batch, *_ in self._batches])

    def validated(self, term: str) -> Tensor:
        """Return the mean of what ``validation_step`` logs as ``term`` over the batches; a metric is computed.

        Raises:
            ValueError: if it logs no such term.
        """
        module = self._module
        logged: dict[str, list[Any]] = {}

        def keep(name: str, value: Any, *_: Any, **__: Any) -> None:
            logged.setdefault(name, []).append(value)

        def all_batches() -> list[Tensor]:
            logged.clear()
            with log_instead(module, keep):
                module.on_validation_epoch_start()
                for batch, batch_idx, loader in self._batches:
                    second = is_param_in_hook_signature(module.validation_step, "dataloader_idx")
                    module.validation_step(batch, batch_idx, *([loader] if second else []))
                module.on_validation_epoch_end()
            values = logged.get(term, [])
            if values and hasattr(values[-1], "compute"):  # a torchmetrics.Metric
                metric = values[-1]
                values = [metric.compute()]
                metric.reset()
            return [torch.as_tensor(value) for value in values]

        found = self._mean(all_batches)
        if term not in logged:
            names = ", ".join(sorted(logged)) or "nothing"
            raise ValueError(f"metric {term!r} is not logged by validation_step, which logs {names}")
        return found

    def _mean(self, values: Callable[[], Sequence[Tensor | None]]) -> Tensor:
        """Return the mean of the ``values`` that are not ``None``, NaN without any."""
        with preserved(self._module), log_instead(self._module):
            self._module.eval()
            found = self._evaluated(values)
        kept = [value.detach().double().mean() for value in found if value is not None]
        return torch.stack(kept).mean() if kept else torch.tensor(torch.nan, dtype=torch.float64)

    def _evaluated(self, values: Callable[[], Sequence[Tensor | None]]) -> Sequence[Tensor | None]:
        """Record no gradients, which take memory, unless ``values`` turns out to need them: for a gradient penalty."""
        with self._trainer.precision_plugin.forward_context():
            if not self._differentiates:
                torch.manual_seed(0)
                try:
                    with torch.no_grad():
                        return values()
                except RuntimeError:
                    self._differentiates = True
            torch.manual_seed(0)
            with torch.enable_grad():
                return values()


def fresh_training_batches(trainer: Trainer, module: LightningModule, number: int) -> Iterator[Any]:
    """Yield the first ``number`` batches of an epoch from a copy of the training loader."""
    combined = training_loaders(trainer)
    loaders = apply_to_collection(combined.iterables, DataLoader, _copied)
    number = int(min(number, trainer.fit_loop.max_batches))
    batches = iter(CombinedLoader(loaders, combination_mode(combined)))
    for batch, _, _ in islice(batches, number):
        yield on_device(trainer, module, batch)


def _copied(loader: DataLoader) -> DataLoader:
    """Return a copy of ``loader`` with its own position, samplers and generators, over the same data set.

    A sampler that counts epochs is always set to the same one, which training never reaches: a loader that was just
    resumed would otherwise start within an epoch.
    """
    shared = {id(loader.dataset): loader.dataset, id(loader._iterator): None}
    loader = copy.deepcopy(loader, shared)
    for sampler in (loader.sampler, loader.batch_sampler):
        if (set_epoch := getattr(sampler, "set_epoch", None)) is not None:
            set_epoch(2**16)
    return loader
