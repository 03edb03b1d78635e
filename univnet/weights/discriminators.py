"""UnivNet's discriminators as files describe them: built from what they say, or from the weights alone."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from univnet.models import (
    Discriminator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.weights.reading import fill

# The window of each of UnivNet's resolutions, by the FFT size that names its weights: (hop, window), in samples.
_RESOLUTIONS = {1024: (120, 600), 2048: (240, 1200), 512: (50, 240)}


def discriminator_config(discriminator: Discriminator) -> dict[str, Any]:
    """Return how it is built, as our checkpoints tell it: ``{"mrd": {…}, "mpd": {…}}``, the parts' arguments."""
    return {"mrd": discriminator.mrd.config, "mpd": discriminator.mpd.config}


def build_discriminator(config: Any, state: Mapping[str, Tensor], where: str) -> Discriminator:
    """Return the discriminator with these weights.

    It is built without memory first, so that a configuration of absurd sizes costs nothing.

    Args:
        config: what ``discriminator_config`` returns; ``None`` takes what the names and shapes of the weights tell, and
            UnivNet's own windows, strides and slope, which they do not.
        state: weight-normed or as they take effect, by our names.
        where: the file, for messages.

    Raises:
        ValueError: the configuration is none, or the weights do not fit it; or, without one, an FFT size is not
            UnivNet's.
    """
    config = _told_by(state, where) if config is None else config
    try:
        with torch.device("meta"):
            discriminator = Discriminator(
                MultiResolutionSpectrogramDiscriminator(**config["mrd"]), MultiPeriodDiscriminator(**config["mpd"])
            )
    except (TypeError, KeyError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{where} describes no discriminator that can be built: {error}") from error
    fill(discriminator, state, where)
    return discriminator


def _told_by(state: Mapping[str, Tensor], where: str) -> dict[str, Any]:
    names = list(dict.fromkeys(name.split(".")[2] for name in state if name.count(".") > 2))
    sizes, periods = (
        [int(name[4:]) for name in names if name.startswith(f"{kind}_") and name[4:].isdecimal()]
        for kind in ("mrd", "mpd")
    )
    if unknown := sorted(set(sizes) - _RESOLUTIONS.keys()):
        raise ValueError(f"{where}: the window of the discriminator mrd_{unknown[0]} is not told in the file")
    mrd, mpd = _widths(state, "mrd", sizes), _widths(state, "mpd", periods)
    resolutions = [(size, *_RESOLUTIONS[size]) for size in sizes]
    return {
        "mrd": {"resolutions": resolutions, "channels": mrd[0] if mrd else 1},
        "mpd": {"periods": periods, "channels": mpd or [1]},
    }


def _widths(state: Mapping[str, Tensor], kind: str, parts: list[int]) -> list[int]:
    """Return the channels of the convolutions before the last, of the first of these sub-discriminators."""
    start = f"{kind}.discriminators.{kind}_{parts[0]}.convs." if parts else "none"
    return [value.numel() for name, value in state.items() if name.startswith(start) and name.endswith("bias")]
