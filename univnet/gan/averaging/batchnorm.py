"""BatchNorm statistics for averaged weights: those of the trajectory's weights do not fit them."""

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

from univnet.gan.rng import rng_state, set_rng_state


def batch_norms(network: nn.Module) -> list[_BatchNorm]:
    """Return the BatchNorm layers that keep running statistics."""
    return [m for m in network.modules() if isinstance(m, _BatchNorm) and m.running_mean is not None]


@torch.no_grad()
def reestimate(trainer: Trainer, pl_module: Any, player: str, batches: int) -> None:
    """Set the statistics of ``player``'s BatchNorm layers to their mean over the first ``batches`` of an epoch.

    As torch's ``update_bn``, through ``generate`` and, for another player than the generator, its loss. Nothing else
    changes: no parameter, no other buffer, no random number of training's, and not the loader's place in its epoch.
    """
    norms = batch_norms(getattr(pl_module, player))
    own = {id(buffer) for norm in norms for buffer in norm.buffers()}
    others = [(buffer, buffer.clone()) for buffer in pl_module.buffers() if id(buffer) not in own]
    modes = [(module, module.training) for module in pl_module.modules()]
    momenta = [(norm, norm.momentum) for norm in norms]
    random = rng_state()
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
        for module, mode in modes:
            module.training = mode
        for buffer, before in others:
            buffer.copy_(before)
        set_rng_state(random)


def _training_batches(trainer: Trainer, pl_module: LightningModule) -> Iterator[Any]:
    """Yield an epoch's batches by a copy of the training loader."""
    loop = trainer.fit_loop
    assert loop._combined_loader is not None
    loaders = apply_to_collection(loop._combined_loader.iterables, DataLoader, _fresh)
    batches = iter(CombinedLoader(loaders, loop._combined_loader._mode))
    limit = None if loop.max_batches == float("inf") else int(loop.max_batches)
    for batch, _, _ in islice(batches, limit):
        batch = trainer.precision_plugin.convert_input(batch)
        batch = pl_module._on_before_batch_transfer(batch, dataloader_idx=0)
        yield trainer.strategy.batch_to_device(batch, dataloader_idx=0)


def _fresh(loader: DataLoader) -> DataLoader:
    """Return ``loader`` with a place, samplers and generators of its own, over the same data set.

    Where a sampler knows epochs, this is always the same one and none of training's, in whose midst a loader that
    has just been resumed might start.
    """
    shared = {id(loader.dataset): loader.dataset, id(loader._iterator): None}
    loader = copy.deepcopy(loader, shared)
    for sampler in (loader.sampler, loader.batch_sampler):
        if (set_epoch := getattr(sampler, "set_epoch", None)) is not None:
            set_epoch(2**16)
    return loader
