"""The networks, as plain modules: the generator and its discriminators."""

from univnet.models.discriminators import (
    Discriminator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.models.generator import Generator

__all__ = ["Discriminator", "Generator", "MultiPeriodDiscriminator", "MultiResolutionSpectrogramDiscriminator"]
