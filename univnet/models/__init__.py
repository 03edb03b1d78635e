"""The networks, as plain modules: the generator and its discriminators, and the contracts for networks of your own."""

from univnet.models.base import BaseDiscriminator, BaseGenerator
from univnet.models.discriminators import (
    Discriminator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.models.generator import Generator
from univnet.models.registry import generator_class, generator_name, register_generator

__all__ = [
    "BaseDiscriminator",
    "BaseGenerator",
    "Discriminator",
    "Generator",
    "MultiPeriodDiscriminator",
    "MultiResolutionSpectrogramDiscriminator",
    "generator_class",
    "generator_name",
    "register_generator",
]
