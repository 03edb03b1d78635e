"""A ``clip_norm`` that moves: a rule decides for each update which norm its gradient may have at most."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class NormLimit(ABC):
    """A rule to give to ``Updates(clip_norm=…)`` in place of a number; in YAML, a ``class_path``.

    Each player works with a copy of its own, so two players may be given the same object. The norm is the same on all
    ranks, and so should the limit be.
    """

    @abstractmethod
    def limit(self, norm: Tensor) -> Tensor | float:
        """Return the limit for an update whose gradient has this Euclidean ``norm`` (a scalar, finite).

        Called once per update, so a rule can keep norms for the next ones.
        """

    def state_dict(self) -> dict[str, Any]:
        """Return what resuming needs: tensors and plain types. Nothing, unless overridden."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:  # noqa: B027 - most rules keep nothing
        """Restore what ``state_dict`` returned."""
