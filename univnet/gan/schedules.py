"""Step the learning-rate schedulers of two optimizers, as Lightning does for one."""

import logging
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any, NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.types import LRSchedulerConfig
from torch.optim.lr_scheduler import OneCycleLR, ReduceLROnPlateau

from univnet.gan.updates import Player

log = logging.getLogger(__name__)

_KEYS = {field.name for field in fields(LRSchedulerConfig)}
_DROPPED = ("monitor", "strict", "reduce_on_plateau")  # Lightning drops them under manual optimization, and warns


class _Watch(NamedTuple):
    """What a scheduler watches, and whether its ``step`` wants to be told."""

    monitor: str | None = None
    strict: bool = True
    plateau: bool = False


class Schedules:
    """Steps the schedulers of ``players``, and remembers the metrics that some of them watch.

    A scheduler that watches a metric is not stepped before the metric is logged: the first validation may be some
    epochs away.

    Attributes:
        seen: the last value of each watched metric. Checkpoints hold it, because a resumed run has logged nothing yet.
        validated: whether this run has validated, so that the names that validation logs are known.
        held: the names of players whose schedulers are paused, because something else sets their rate.
        patient: whether a metric that is not logged is waited for, because nothing is validated at present.
    """

    def __init__(self, players: Mapping[str, Player]) -> None:
        self._players = players
        self._watched: weakref.WeakKeyDictionary[Any, _Watch] = weakref.WeakKeyDictionary()
        self.seen: dict[str, float] = {}
        self.validated = False
        self.held: set[str] = set()
        self.patient = False

    def note(self, configured: Any) -> Any:
        """Note which metric each scheduler in ``configure_optimizers``' result watches.

        Returns:
            The result without the keys that Lightning would drop.

        Raises:
            MisconfigurationException: a scheduler's settings have an unknown key or interval.
        """
        if isinstance(configured, Mapping):
            if "scheduler" in configured:
                return self._watch(configured)
            if "lr_scheduler" in configured:
                given = configured["lr_scheduler"]
                settings = given if isinstance(given, Mapping) else {"scheduler": given}
                if "monitor" in configured:
                    settings = {"monitor": configured["monitor"], **settings}
                return {**configured, "lr_scheduler": self._watch(settings)}
            return configured
        if isinstance(configured, (list, tuple)):
            return type(configured)(map(self.note, configured))
        if isinstance(configured, ReduceLROnPlateau | OneCycleLR):
            _check({"scheduler": configured})
        return configured

    def _watch(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        _check(settings)
        self._watched[settings["scheduler"]] = _Watch(
            settings.get("monitor"), settings.get("strict", True), _is_plateau(settings)
        )
        return {key: value for key, value in settings.items() if key not in _DROPPED}

    def see(self, trainer: Trainer) -> None:
        """Note the present values of the watched metrics."""
        names = {each.monitor for each in self._watched.values() if each.monitor is not None}
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
            counted = config.interval == "step" and _of(generator, config)
            if counted and isinstance(length, int) and length < wanted:
                raise MisconfigurationException(
                    f"the generator's schedule {type(scheduler).__name__} lasts {length} steps and the run {wanted}: "
                    "make its total_steps at least that, or max_steps smaller"
                )

    def after_updates(self, trainer: Trainer, moved: Iterable[Player]) -> None:
        """Step the schedulers (``interval: step``) that are due after an update of the players in ``moved``."""
        for player in moved:
            for config in self._due(trainer, "step", player.steps):
                if _of(player, config):
                    self._step(trainer, config)

    def after_epoch(self, trainer: Trainer, plateau: bool) -> None:
        """Step the schedulers that are due at this epoch's end: all that want a metric, or all others."""
        for config in self._due(trainer, "epoch", trainer.current_epoch + 1):
            if self._watch_of(config).plateau == plateau:
                self._step(trainer, config)

    def _due(self, trainer: Trainer, interval: str, count: int) -> list[LRSchedulerConfig]:
        held = [self._players[name] for name in self.held]
        return [
            config
            for config in trainer.lr_scheduler_configs
            if config.interval == interval
            and count % config.frequency == 0
            and not any(_of(player, config) for player in held)
        ]

    def _step(self, trainer: Trainer, config: LRSchedulerConfig) -> None:
        step = trainer.lightning_module.lr_scheduler_step
        name, strict, plateau = self._watch_of(config)
        if not plateau:
            try:
                step(config.scheduler, None)
            except ValueError as error:
                raise MisconfigurationException(
                    f"the schedule {type(config.scheduler).__name__} is shorter than the run ({error}): make it "
                    "as long as the run, in this player's updates"
                ) from error
            return
        self.see(trainer)
        kind = type(config.scheduler).__name__
        if name is not None and name in self.seen:
            step(config.scheduler, self.seen[name])
        elif self.patient or (trainer.enable_validation and not self.validated):
            log.debug("%s waits for its monitor %r", kind, name)
        else:
            told = f"{kind}'s monitor {name!r} is not logged; name one of the logged metrics: "
            told += ", ".join(sorted(trainer.callback_metrics))
            if strict:
                raise MisconfigurationException(told)
            rank_zero_warn(told)

    def _watch_of(self, config: LRSchedulerConfig) -> _Watch:
        return self._watched.get(config.scheduler, _Watch())


def _check(settings: Mapping[str, Any]) -> None:
    """Refuse what Lightning refuses for one optimizer; for several it looks at nothing."""
    if unknown := sorted(settings.keys() - _KEYS):
        raise MisconfigurationException(
            f"configure_optimizers: a scheduler has unknown settings {unknown}; there are {sorted(_KEYS)}"
        )
    if (interval := settings.get("interval", "epoch")) not in ("step", "epoch"):
        raise MisconfigurationException(
            f"configure_optimizers: a scheduler's interval must be 'step' or 'epoch', got {interval!r}"
        )
    if "scheduler" not in settings:
        raise MisconfigurationException("configure_optimizers: a scheduler's settings are without a 'scheduler'")
    kind = type(settings["scheduler"]).__name__
    if _is_plateau(settings) and settings.get("monitor") is None:
        raise MisconfigurationException(f"configure_optimizers: {kind} needs a 'monitor', the name of a logged metric")
    if isinstance(settings["scheduler"], OneCycleLR) and settings.get("interval", "epoch") == "epoch":
        rank_zero_warn(f"configure_optimizers: {kind} is stepped once per epoch; 'interval': 'step' is once per update")


def _is_plateau(settings: Mapping[str, Any]) -> bool:
    """Whether the scheduler's ``step`` wants the watched metric."""
    return bool(settings.get("reduce_on_plateau", isinstance(settings["scheduler"], ReduceLROnPlateau)))


def _of(player: Player, config: LRSchedulerConfig) -> bool:
    return any(config.scheduler.optimizer is optimizer for optimizer in player.optimizers)
