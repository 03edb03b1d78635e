"""A player's loss terms on a few validation batches, the same ones with the same random numbers every time."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from torch import Tensor

from univnet.gan.module import GANModule, named_terms
from univnet.gan.rng import rng_state, set_rng_state


class FixedBatches:
    """The first ``number`` of the trainer's validation batches, on the module's device.

    Raises:
        ValueError: where there is nothing to validate on.
    """

    def __init__(self, trainer: Trainer, module: GANModule, number: int) -> None:
        self._trainer, self._module = trainer, module
        source = trainer.fit_loop.epoch_loop.val_loop._data_source
        loaders = source.dataloader() if source.is_defined() else []
        with _apart(module):
            batches = [batch for batch, *_ in islice(iter(CombinedLoader(loaders or [], "sequential")), number)]
            self._batches = [trainer.strategy.batch_to_device(batch) for batch in batches]
        if not batches:
            raise ValueError(f"validation_batches={number}, but there is nothing to validate on")

    def mean(self, term: str) -> Tensor:
        """Return the mean over the batches of ``term``, such as ``generator/stft``.

        Raises:
            ValueError: where no player's loss has such a term.
        """
        player, _, name = term.partition("/")
        if player not in self._module.updates:
            raise ValueError(f"monitor {term!r} must be a term of a player's loss, such as generator/loss")
        loss = getattr(self._module, f"{player}_loss")
        values = []
        with _apart(self._module), self._trainer.precision_plugin.forward_context():
            torch.manual_seed(0)
            for batch in self._batches:
                terms = named_terms(loss(batch, self._module.generate(batch)), player)
                if name not in terms:
                    names = ", ".join(f"{player}/{each}" for each in sorted(terms))
                    raise ValueError(f"monitor {term!r} is no term of a validation batch's loss; name one of {names}")
                values.append(terms[name].double())
        return torch.stack(values).mean()


@contextmanager
def _apart(module: GANModule) -> Iterator[None]:
    """Evaluate without gradients, and leave random numbers and the mode of every layer as they were."""
    modes, random = {layer: layer.training for layer in module.modules()}, rng_state()
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        set_rng_state(random)
        for layer, training in modes.items():
            layer.training = training
