"""What Lightning does for the learning-rate schedulers of one optimizer, for those of two."""

import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim import Optimizer
from torch.optim.lr_scheduler import ReduceLROnPlateau

log = logging.getLogger(__name__)

_DROPPED = ("monitor", "strict", "reduce_on_plateau")  # by Lightning, with a warning, under manual optimization


class Schedules:
    """Steps a model's schedulers, and remembers the metrics that some of them watch.

    Attributes:
        seen: the last value of each metric watched. Checkpoints carry it, since a resumed run has logged nothing yet.
    """

    def __init__(self) -> None:
        self._watched: dict[int, tuple[str | None, bool]] = {}
        self.seen: dict[str, float] = {}

    def note(self, answer: Any) -> Any:
        """Keep which metric each scheduler in ``configure_optimizers``' answer watches.

        Returns the answer without the keys that Lightning would drop.
        """
        if isinstance(answer, Mapping):
            if "scheduler" in answer:
                self._watched[id(answer["scheduler"])] = answer.get("monitor"), answer.get("strict", True)
                return {key: value for key, value in answer.items() if key not in _DROPPED}
            return {key: self.note(value) for key, value in answer.items()}
        if isinstance(answer, (list, tuple)):
            return type(answer)(map(self.note, answer))
        return answer

    def see(self, metrics: Mapping[str, Any]) -> None:
        """Take note of those ``metrics`` that are watched."""
        names = {name for name, _ in self._watched.values()}
        self.seen |= {name: float(value) for name, value in metrics.items() if name in names}

    def step(
        self,
        configs: Iterable[LRSchedulerConfig],
        step: Callable[[Any, Any], None],
        optimizer: Optimizer | None = None,
    ) -> None:
        """Call ``step(scheduler, metric)`` for each of ``configs`` (of those of ``optimizer``, where it is given).

        Raises:
            MisconfigurationException: where ``ReduceLROnPlateau`` watches a metric that was never logged.
        """
        for config in configs:
            if optimizer is not None and config.scheduler.optimizer is not optimizer:
                continue
            name, strict = self._watched.get(id(config.scheduler), (None, True))
            if not watches(config):
                step(config.scheduler, None)
            elif name is not None and name in self.seen:
                step(config.scheduler, self.seen[name])
            elif strict:
                raise MisconfigurationException(f"ReduceLROnPlateau's monitor {name!r} is no metric that was logged")
            else:
                log.warning("ReduceLROnPlateau's monitor %r is not logged yet", name)


def due(configs: Iterable[LRSchedulerConfig], interval: str, count: int) -> list[LRSchedulerConfig]:
    """Return those whose ``interval`` this is and whose ``frequency`` divides ``count``."""
    return [config for config in configs if config.interval == interval and count % config.frequency == 0]


def watches(config: LRSchedulerConfig) -> bool:
    """Whether the scheduler needs a metric."""
    return isinstance(config.scheduler, ReduceLROnPlateau)
