"""BatchNorm statistics for averaged weights: those collected in training are of other weights."""

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from univnet.gan.play.evaluation import fresh_training_batches
from univnet.gan.play.logging import log_instead
from univnet.gan.play.owners import networks_of
from univnet.gan.play.terms import detached
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
    norms = [norm for network in networks_of(pl_module, player).values() for norm in batch_norms(network)]
    own = {id(buffer) for norm in norms for buffer in norm.buffers()}
    others = [(buffer, buffer.clone()) for buffer in pl_module.buffers() if id(buffer) not in own]
    momenta = [(norm, norm.momentum) for norm in norms]
    with preserved(pl_module), log_instead(pl_module):
        try:
            pl_module.train()
            for norm in norms:
                norm.reset_running_stats()
                norm.momentum = None  # the plain mean over all batches
            for batch in fresh_training_batches(trainer, pl_module, batches):
                with trainer.precision_plugin.forward_context():
                    fake = pl_module.generate(batch)
                    if player != "generator":
                        fake = detached(fake)
                        with torch.enable_grad():  # for losses that differentiate: a gradient penalty
                            getattr(pl_module, f"{player}_loss")(batch, fake)
        finally:
            for norm, momentum in momenta:
                norm.momentum = momentum
            for buffer, before in others:
                buffer.copy_(before)
