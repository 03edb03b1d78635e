"""Read the averages in a checkpoint; needs no Lightning, so that a vocoder loads fast."""

from collections.abc import Mapping
from typing import Any, Literal

from torch import Tensor

KINDS = ("swa", "ema")  # in the order of preference where there are both


def averaged_weights(
    checkpoint: Mapping[str, Any], player: str = "generator", kind: Literal["swa", "ema"] | None = None
) -> dict[str, Tensor] | None:
    """Return the averaged weights of ``player`` in a loaded checkpoint, named as in its network's state dict.

    Effective weights are those of the network without weight norm. Where ``kind`` is not given, SWA's are taken once
    there are any, else EMA's; ``None`` where there are none.

    Raises:
        ValueError: where an average of this ``kind`` has no update yet.
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
