"""Training techniques for Lightning modules of two players, generator and discriminator, each with its optimizer."""

from typing import TYPE_CHECKING

from univnet.common.lazy import lazily

if TYPE_CHECKING:
    from univnet.gan.averaging.checkpoint import averaged_weights
    from univnet.gan.averaging.ema import ExponentialMovingAverage
    from univnet.gan.averaging.swa import StochasticWeightAveraging
    from univnet.gan.cyclical import CyclicalLR
    from univnet.gan.module import GANModule
    from univnet.gan.norm_limit import NormLimit
    from univnet.gan.shared_forward import SharedForward
    from univnet.gan.tuner.batch_size_result import BatchSizeSearch
    from univnet.gan.tuner.lr_curve import LRCurve
    from univnet.gan.tuner.lr_grid import LRGrid
    from univnet.gan.tuner.lr_range_test import Collapse
    from univnet.gan.tuner.lr_result import LRRangeTest
    from univnet.gan.tuner.tuner import Tuner
    from univnet.gan.updates import NonFiniteError, Player, Updates

__all__ = [
    "BatchSizeSearch",
    "Collapse",
    "CyclicalLR",
    "ExponentialMovingAverage",
    "GANModule",
    "LRCurve",
    "LRGrid",
    "LRRangeTest",
    "NonFiniteError",
    "NormLimit",
    "Player",
    "SharedForward",
    "StochasticWeightAveraging",
    "Tuner",
    "Updates",
    "averaged_weights",
]

# Imported on first access, so that reading an average from a checkpoint does not import Lightning.
_MODULES = {
    "averaged_weights": "averaging.checkpoint",
    "BatchSizeSearch": "tuner.batch_size_result",
    "CyclicalLR": "cyclical",
    "ExponentialMovingAverage": "averaging.ema",
    "LRCurve": "tuner.lr_curve",
    "LRGrid": "tuner.lr_grid",
    "Collapse": "tuner.lr_range_test",
    "LRRangeTest": "tuner.lr_result",
    "GANModule": "module",
    "SharedForward": "shared_forward",
    "StochasticWeightAveraging": "averaging.swa",
    "Tuner": "tuner.tuner",
    "NormLimit": "norm_limit",
    "NonFiniteError": "updates",
    "Player": "updates",
    "Updates": "updates",
}


__getattr__, __dir__ = lazily(__name__, {name: f"{__name__}.{module}" for name, module in _MODULES.items()})
