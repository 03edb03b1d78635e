"""Sums of loss terms, some of which appear in some micro-batches only."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


class Sums:
    """Sums of named terms, and the number of micro-batches in which each appeared.

    Attributes:
        totals: by the terms' names.
        counts: the same.
    """

    def __init__(self) -> None:
        self.totals: dict[str, Tensor] = {}
        self.counts: dict[str, int] = {}

    def add(self, terms: Mapping[str, Tensor], counts: Mapping[str, int] | None = None) -> None:
        """Add ``terms``: each of one micro-batch, or a sum over as many as ``counts`` says."""
        for name, value in terms.items():
            value, known = value.detach(), name in self.totals
            self.totals[name] = self.totals[name] + value if known else value.clone()
            self.counts[name] = self.counts.get(name, 0) + (counts[name] if counts else 1)

    def means(self) -> dict[str, Tensor]:
        """Return each term's mean over the micro-batches in which it appeared."""
        return {name: total / self.counts[name] for name, total in self.totals.items()}

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint keeps."""
        return {"totals": self.totals, "counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Any], count: int, device: torch.device) -> None:
        """Restore what ``state_dict`` returned; version 0.1 kept the totals alone, all of ``count`` micro-batches."""
        older = "counts" not in state
        totals = state if older else state["totals"]
        self.totals = {name: total.to(device) for name, total in totals.items()}
        self.counts = dict.fromkeys(totals, count) if older else dict(state["counts"])
