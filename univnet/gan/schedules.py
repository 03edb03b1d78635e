"""Step the learning-rate schedulers of two optimizers, as Lightning does for one."""

import logging
import weakref
from collections.abc import Iterable, Mapping
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import ReduceLROnPlateau

from univnet.gan.updates import Player

log = logging.getLogger(__name__)

_DROPPED = ("monitor", "strict", "reduce_on_plateau")  # Lightning drops them under manual optimization, and warns


class Schedules:
    """Steps the schedulers of ``players``, and remembers the metrics that some of them watch.

    A scheduler that watches a metric is not stepped before the metric is logged: the first validation may be some
    epochs away.

    Attributes:
        seen: the last value of each watched metric. Checkpoints hold it, because a resumed run has logged nothing yet.
        validated: whether this run has validated, so that the names that validation logs are known.
        held: the names of players whose schedulers are paused, because something else sets their rate.
    """

    def __init__(self, players: Mapping[str, Player]) -> None:
        self._players = players
        self._watched: weakref.WeakKeyDictionary[Any, tuple[str | None, bool]] = weakref.WeakKeyDictionary()
        self.seen: dict[str, float] = {}
        self.validated = False
        self.held: set[str] = set()

    def note(self, configured: Any) -> Any:
        """Note which metric each scheduler in ``configure_optimizers``' result watches.

        Returns:
            The result without the keys that Lightning would drop.
        """
        if isinstance(configured, Mapping):
            if "scheduler" in configured:
                self._watched[configured["scheduler"]] = configured.get("monitor"), configured.get("strict", True)
                return {key: value for key, value in configured.items() if key not in _DROPPED}
            return {key: self.note(value) for key, value in configured.items()}
        if isinstance(configured, (list, tuple)):
            return type(configured)(map(self.note, configured))
        return configured

    def see(self, trainer: Trainer) -> None:
        """Note the present values of the watched metrics."""
        names = {name for name, _ in self._watched.values() if name is not None}
        if names:
            own = {name: value for player in self._players.values() for name, value in player.metrics().items()}
            metrics = {**trainer.callback_metrics, **own}
            self.seen |= {name: float(metrics[name]) for name in names & metrics.keys()}

    def check_lengths(self, trainer: Trainer) -> None:
        """Refuse a schedule that ends before the run does, as ``OneCycleLR`` can, where both are known.

        Raises:
            MisconfigurationException: the generator's is shorter than ``max_steps``.
        """
        generator = next(iter(self._players.values()))
        for config in trainer.lr_scheduler_configs:
            scheduler, wanted = config.scheduler, trainer.max_steps // config.frequency
            length = getattr(scheduler, "total_steps", None)
            counted = config.interval == "step" and scheduler.optimizer is generator.optimizer
            if counted and isinstance(length, int) and length < wanted:
                raise MisconfigurationException(
                    f"the generator's schedule {type(scheduler).__name__} lasts {length} steps and the run {wanted}: "
                    "make its total_steps at least that, or max_steps smaller"
                )

    def after_updates(self, trainer: Trainer, moved: Iterable[Player]) -> None:
        """Step the schedulers (``interval: step``) that are due after an update of the players in ``moved``."""
        for player in moved:
            for config in self._due(trainer, "step", player.steps):
                if config.scheduler.optimizer is player.optimizer:
                    self._step(trainer, config)

    def after_epoch(self, trainer: Trainer, plateau: bool) -> None:
        """Step the schedulers that are due at this epoch's end: every ``ReduceLROnPlateau``, or all others."""
        for config in self._due(trainer, "epoch", trainer.current_epoch + 1):
            if isinstance(config.scheduler, ReduceLROnPlateau) == plateau:
                self._step(trainer, config)

    def _due(self, trainer: Trainer, interval: str, count: int) -> list[LRSchedulerConfig]:
        held = [self._players[name].optimizer for name in self.held]
        return [
            config
            for config in trainer.lr_scheduler_configs
            if config.interval == interval
            and count % config.frequency == 0
            and not any(config.scheduler.optimizer is optimizer for optimizer in held)
        ]

    def _step(self, trainer: Trainer, config: LRSchedulerConfig) -> None:
        step = trainer.lightning_module.lr_scheduler_step
        if not isinstance(config.scheduler, ReduceLROnPlateau):
            try:
                step(config.scheduler, None)
            except ValueError as error:
                raise MisconfigurationException(
                    f"the schedule {type(config.scheduler).__name__} is shorter than the run ({error}): make it "
                    "as long as the run, in this player's updates"
                ) from error
            return
        self.see(trainer)
        name, strict = self._watched.get(config.scheduler, (None, True))
        if name is not None and name in self.seen:
            step(config.scheduler, self.seen[name])
        elif strict and (self.validated or not trainer.enable_validation):
            logged = ", ".join(sorted(trainer.callback_metrics))
            raise MisconfigurationException(
                f"ReduceLROnPlateau's monitor {name!r} is not logged; name one of the logged metrics: {logged}"
            )
        else:
            log.debug("ReduceLROnPlateau waits for its monitor %r", name)
