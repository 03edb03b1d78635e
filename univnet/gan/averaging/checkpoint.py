"""Read the averages in a checkpoint, without Lightning, so that a vocoder loads fast."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

KINDS = ("swa", "ema")  # in order of preference


def averaged_weights(
    checkpoint: Mapping[str, Any], player: str = "generator", kind: Literal["swa", "ema"] | None = None
) -> dict[str, Tensor] | None:
    """Return the averaged weights of ``player`` in a loaded checkpoint, by their names in the network's state dict.

    Effective weights have the names of the network without weight norm. Without ``kind``, SWA's are returned if
    there are any, otherwise EMA's; ``None`` if there are neither.

    Raises:
        ValueError: if the checkpoint has an average of this ``kind`` that has no updates yet.
    """
    averages = checkpoint.get("averaged", {}).get(player, {})
    for name in (kind,) if kind else KINDS:
        average = averages.get(name, {"n_averaged": 0})
        if average["n_averaged"]:
            return dict(average["weights"])
        if kind in averages:
            raise ValueError(
                f"the checkpoint's {kind} average of the {player} has no updates yet: take the raw weights"
            )
    return None
