"""BatchNorm statistics for averaged weights: those collected in training are of other weights."""

import copy
from collections.abc import Iterator
from itertools import islice
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from univnet.gan.lightning_internals import combination_mode, on_device, training_loaders
from univnet.gan.rng import preserved


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def reestimate(trainer: Trainer, pl_module: Any, player: str, batches: int) -> None:
    """Set the statistics of ``player``'s BatchNorm layers to their mean over the first ``batches`` of an epoch.

    Like torch's ``update_bn``, but it runs ``generate`` and, for any player but the generator, the player's loss.
    Nothing else changes: no parameter, no other buffer, not training's random numbers, not the loader's position.
    """
    norms = batch_norms(getattr(pl_module, player))
    own = {id(buffer) for norm in norms for buffer in norm.buffers()}
    others = [(buffer, buffer.clone()) for buffer in pl_module.buffers() if id(buffer) not in own]
    momenta = [(norm, norm.momentum) for norm in norms]
    with preserved(pl_module):
        try:
            pl_module.train()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over all batches
            for batch in islice(_training_batches(trainer, pl_module), batches):
                with trainer.precision_plugin.forward_context():
                    fake = pl_module.generate(batch)
                    if player != "generator":
                        fake = apply_to_collection(fake, Tensor, Tensor.detach)
                        getattr(pl_module, f"{player}_loss")(batch, fake)
        finally:
            for norm, momentum in momenta:
                norm.momentum = momentum
            for buffer, before in others:
                buffer.copy_(before)


def _training_batches(trainer: Trainer, pl_module: LightningModule) -> Iterator[Any]:
    """Yield an epoch's batches from a copy of the training loader."""
    combined = training_loaders(trainer)
    loaders = apply_to_collection(combined.iterables, DataLoader, _copied)
    limit = trainer.fit_loop.max_batches
    batches = iter(CombinedLoader(loaders, combination_mode(combined)))
    for batch, _, _ in islice(batches, None if limit == float("inf") else int(limit)):
        yield on_device(trainer, pl_module, batch)


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
