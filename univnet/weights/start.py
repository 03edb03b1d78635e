"""Start training from weights that were trained elsewhere, as far as they fit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from univnet.weights.sources import Weights

_GAIN, _DIRECTION = "parametrizations.weight.original0", "parametrizations.weight.original1"


@dataclass
class Taken:
    """What became of one player's weights, by name.

    Attributes:
        player: its name.
        taken: weights that the file gave.
        fresh: weights that it does not have: they stay as they were made.
        unfit: weights of another shape there, with both shapes, or that weight normalization cannot express: these
            stay as they were made, too.
        unknown: weights in the file that this player does not have.
    """

    player: str
    total: int = 0  # of the player's own weights
    taken: list[str] = field(default_factory=list)
    fresh: list[str] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    unknown: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """Tell it in a few lines; lists that are the whole player's are not spelled out."""
        lines = [f"{self.player}: {len(self.taken)} of {self.total} weights taken"]
        if self.taken and len(self.taken) < self.total:
            lines.append(f"  taken: {', '.join(self.taken)}")
        for title, names in (
            ("left as they were made", self.fresh),
            ("of another shape, left as they were made", self.unfit),
            ("in the file, but not here", self.unknown),
        ):
            if names:
                lines.append(
                    f"  {title}: {'all' if len(names) == self.total and names is self.fresh else ', '.join(names)}"
                )
        return "\n".join(lines)


def start_from(model: Any, source: Weights) -> list[Taken]:
    """Give the players of ``model`` the weights in ``source`` that fit: no counters, optimizers or schedules.

    Args:
        model: has the networks ``generator`` and ``discriminator``, such as a ``univnet.UnivNet`` before training.
        source: from ``univnet.weights.sources.read_weights``.

    Returns:
        What became of each player's weights.

    Raises:
        ValueError: nothing fits.
    """
    told = [_fill(player, getattr(model, player), getattr(source, player)) for player in ("generator", "discriminator")]
    if not any(each.taken for each in told):
        unfit = [name for each in told for name in (*each.unfit, *each.unknown)]
        raise ValueError(
            f"{source.where} is {source.kind}, and none of its weights fits this model"
            + (f": {'; '.join(unfit[:3])}" if unfit else "")
        )
    return told


def mel_differences(source: Weights, mel: Any) -> list[str]:
    """Return how the mel-spectrogram that ``source`` was trained on differs from ``mel``, a phrase each."""
    theirs = source.mel_config or {}
    ours = mel.config
    return [f"{k} was {theirs[k]:g} and is {v:g}" for k, v in ours.items() if k in theirs and theirs[k] != v]


@torch.no_grad()
def _fill(player: str, network: nn.Module, given: Mapping[str, Tensor]) -> Taken:
    told = Taken(player, len(network.state_dict()))
    left = _as_normed_as(network, given, told.unfit)
    for name, value in network.state_dict().items():  # shares memory with the parameters
        found = left.pop(name, None)
        if found is None:
            told.fresh.append(name)
        elif found.shape != value.shape:
            told.unfit.append(f"{name} {tuple(found.shape)} for {tuple(value.shape)}")
        elif not found.isfinite().all():
            told.unfit.append(f"{name} (holds NaN or infinity)")
        else:
            value.copy_(found)
            told.taken.append(name)
    told.unknown = list(left)
    return told


def _as_normed_as(network: nn.Module, given: Mapping[str, Tensor], unfit: list[str]) -> dict[str, Tensor]:
    """Return ``given`` with weight normalization where ``network`` has it, and without where it has not.

    Weights that it cannot express are added to ``unfit``.
    """
    state = dict(given)
    for name, module in network.named_modules():
        normed = parametrize.is_parametrized(module, "weight")
        plain, gain, direction = (f"{name}.{each}" for each in ("weight", _GAIN, _DIRECTION))
        if normed and plain in state:
            weight, norm = state.pop(plain), module.parametrizations
            made = norm.weight[0].right_inverse(weight)
            if made[0].all():
                state[gain], state[direction] = made
            else:
                unfit.append(f"{plain} (a filter of zeros has no direction)")
        elif not normed and gain in state and direction in state and hasattr(module, "weight"):
            state[plain] = torch._weight_norm(state.pop(direction), state.pop(gain), 0)
    return state
