"""Training techniques for two-player (generator / discriminator) Lightning modules, per optimizer."""

from univnet.gan.cyclical import CyclicalLR
from univnet.gan.module import GANModule
from univnet.gan.updates import NonFiniteError, Player, Updates

__all__ = ["CyclicalLR", "GANModule", "NonFiniteError", "Player", "Updates"]
