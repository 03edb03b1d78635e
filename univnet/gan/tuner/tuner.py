"""Find learning rates and the batch size before training."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.parsing import lightning_hasattr, lightning_setattr

from univnet.common.mistakes import Mistakes
from univnet.gan.module import GANModule
from univnet.gan.tuner.batch_size import BatchSizeOptions, find_batch_size
from univnet.gan.tuner.batch_size import Mode as BatchSizeMode
from univnet.gan.tuner.batch_size_result import BatchSizeSearch
from univnet.gan.tuner.lr_curve import DEFAULT_METHOD, METHODS, Method
from univnet.gan.tuner.lr_grid import LRGrid, run_grid
from univnet.gan.tuner.lr_range_test import Collapse, Mode, RestingError, Sweep, range_test, sweep_rates
from univnet.gan.tuner.lr_result import LRRangeTest

Optimizer = Literal["generator", "discriminator", "joint", "both", "grid"]
_PLAYERS = ("generator", "discriminator")


@dataclass(frozen=True)
class LRFindOptions:
    """How to test a range of learning rates.

    Args:
        optimizer: whose rate is swept; "generator", "discriminator", "both" one after the other (the second with the
            first at the rate just found), "joint" for both together at a fixed ratio, or "grid" for every pair of a few
            rates.
        min_lr: the first learning rate.
        max_lr: the last learning rate.
        num_training: updates of the swept player, one at each rate; in a grid, updates at each pair of rates.
        mode: how the rates are spaced; "exponential": equal ratios, "linear": equal differences.
        early_stop_threshold: end when the smoothed loss is this many times the lowest; ``None`` (null in YAML): do not.
        monitor: the logged term to watch, default: the module's own; such as generator/adversarial, or a mapping with
            one for each player. If two players are swept, a single term is for the player whose name it begins with.
            The module's own are ``watched``, for a UnivNet generator/stft and discriminator/loss.
        rates: the learning rates to test, instead of ``min_lr`` to ``max_lr``.
        ratio: the discriminator's rate over the generator's in a joint test, default: as configured.
        repeats: number of tests, from the same weights with other random numbers; the curve is their mean.
        smoothing: weight of a neighbour in the smoothed curve, 0 to below 1; to the power of its distance in points.
        collapse: when the discriminator counts as collapsed, default: the module's own rule; that ends its test. The
            module's is ``collapse_rule``, if it has one, because that is a matter of its loss.
        validation_batches: validation batches whose loss is watched after each update; 0: the training loss is watched.
        metric: what to watch after each update in place of a loss, lower is better. It is for losses that do not tell
            how good the generator is: a function ``(module, batch) -> scalar``, or what validation_step logs, such as
            val/fid. It is the mean over ``validation_batches`` batches (default 4), for a function of training if
            there are no others.
        suggest: how rates are chosen from curves.
        grid_size: number of rates of each player in a grid.

    Raises:
        ValueError: if options are out of range; it names all of them.
    """

    optimizer: Optimizer = "generator"
    min_lr: float = 1e-8
    max_lr: float = 1
    num_training: int = 100
    mode: Mode = "exponential"
    early_stop_threshold: float | None = 4.0
    monitor: str | Mapping[str, str] | None = None
    rates: Sequence[float] | None = None
    ratio: float | None = None
    repeats: int = 1
    smoothing: float = 0.8
    collapse: Collapse | None = None
    validation_batches: int = 0
    metric: str | Callable[[Any, Any], Any] | None = None
    suggest: Method = DEFAULT_METHOD
    grid_size: int = 5

    def __post_init__(self) -> None:
        mistakes = Mistakes("learning-rate range test")
        self.collect_mistakes(mistakes)
        mistakes.raise_all()

    def collect_mistakes(self, mistakes: Mistakes) -> None:
        """Note every option that is out of range."""

        def one_of(name: str, allowed: Sequence[str]) -> None:
            value = getattr(self, name)
            mistakes.unless(value in allowed, f"{name} must be one of {', '.join(allowed)}, got {value!r}")

        one_of("optimizer", get_args(Optimizer))
        one_of("mode", get_args(Mode))
        if self.rates is None:
            rule = f"the rates must be 0 < min_lr < max_lr, got {self.min_lr!r} and {self.max_lr!r}"
            mistakes.unless(0 < self.min_lr < self.max_lr, rule)
        else:
            rule = f"rates must be at least one learning rate above 0, got {list(self.rates)}"
            mistakes.unless(len(self.rates) > 0 and min(self.rates) > 0, rule)
        grid = self.optimizer == "grid"  # there num_training is for one pair of rates, otherwise for all rates
        least = {"num_training": 1 if grid else 2, "repeats": 1, "validation_batches": 0, "grid_size": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            mistakes.unless(value >= smallest, f"{name} must be at least {smallest}, got {value!r}")
        mistakes.unless(self.ratio is None or self.ratio > 0, f"ratio must be above 0, got {self.ratio!r}")
        mistakes.unless(0 <= self.smoothing < 1, f"smoothing must be at least 0 and below 1, got {self.smoothing!r}")
        one_of("suggest", METHODS)
        mistakes.unless(
            self.metric is None or self.monitor is None, "give monitor or metric: only one of them can be watched"
        )

    def points(self) -> list[float]:
        """Return the learning rates to test; in a grid, each player's."""
        if self.rates is not None:
            return list(self.rates)
        number = self.grid_size if self.optimizer == "grid" else self.num_training
        return sweep_rates(self.min_lr, self.max_lr, number, self.mode)


class Tuner:
    """Find learning rates and the batch size of a ``GANModule``, like Lightning's ``Tuner`` for one optimizer.

    Args:
        trainer: the trainer for the module. A search changes neither, apart from setting what it found.

    Attributes:
        batch_size_search: the last batch-size search: the sizes tried, a table, a plot; ``None`` before the first.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
        self.batch_size_search: BatchSizeSearch | None = None

    def scale_batch_size(
        self,
        model: GANModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: str = "fit",
        mode: BatchSizeMode = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
        *,
        target_batch: int | None = None,
        memory_budget: int | str | None = None,
    ) -> int | None:
        """Find the batch size that fits into memory, or trains fastest; set it and return it.

        The first thirteen arguments are Lightning's. ``batch_size_search`` then shows how it was found. Nothing else
        changes; on several ranks all find the same size.

        Args:
            model: the module to train. Its ``on_batch_size_trial`` begins what normally begins late in training.
            train_dataloaders: a data module or ``None``: a loader's batch size could not be changed.
            val_dataloaders: must be ``None``.
            dataloaders: must be ``None``.
            datamodule: as in ``Trainer.fit``.
            method: must be ``"fit"``.
            batch_arg_name: the attribute or hyperparameter to set, on the model, the data module or both.

        All other arguments are fields of ``univnet.gan.tuner.batch_size.BatchSizeOptions``, which describes them. With
        ``target_batch``, the micro-batches to accumulate are ``batch_size_search.accumulate``.

        Returns:
            The size; ``None`` with ``fast_dev_run``.

        Raises:
            MisconfigurationException: if loaders were given; if there is no such attribute or hyperparameter, or
                several with different values; if the loaders do not use it; if the trainer has a ``BatchSizeFinder`` or
                a strategy that is not supported.
            ValueError: if arguments are out of range; it names all of them.
            MemoryError: if not even the smallest size fits.
        """
        options = BatchSizeOptions(
            mode, steps_per_trial, init_val, max_trials, margin, max_val, target_batch, memory_budget
        )
        if isinstance(train_dataloaders, LightningDataModule):
            train_dataloaders, datamodule = None, train_dataloaders
        if method != "fit":
            raise ValueError(f"method {method!r} is invalid: the batch size is that of training, method='fit'")
        if any(loaders is not None for loaders in (train_dataloaders, val_dataloaders, dataloaders)):
            raise MisconfigurationException(
                "the batch-size finder cannot be used with dataloaders passed directly, because it cannot change them: "
                "give a data module, or define train_dataloader() on the model"
            )
        if self._trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn("Skipping the batch-size finder since `fast_dev_run` is enabled.")
            return None
        self.batch_size_search = find_batch_size(self._trainer, model, datamodule, options, batch_arg_name)
        return self.batch_size_search.size

    def lr_find(
        self,
        model: GANModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        method: str = "fit",
        min_lr: float = 1e-8,
        max_lr: float = 1,
        num_training: int = 100,
        mode: Mode = "exponential",
        early_stop_threshold: float | None = 4.0,
        update_attr: bool = True,
        attr_name: str | Mapping[str, str] = "",
        weights_only: bool | None = None,
        *,
        optimizer: Optimizer = "generator",
        monitor: str | Mapping[str, str] | None = None,
        rates: Sequence[float] | None = None,
        ratio: float | None = None,
        repeats: int = 1,
        smoothing: float = 0.8,
        collapse: Collapse | None = None,
        validation_batches: int = 0,
        metric: str | Callable[[Any, Any], Any] | None = None,
        ckpt_path: Any = None,
        suggest: Method = DEFAULT_METHOD,
        grid_size: int = 5,
    ) -> LRRangeTest | LRGrid | None:
        """Test a range of learning rates in a real training run of a copy of ``model``.

        The first fourteen arguments are Lightning's.

        Args:
            model: the module to tune.
            train_dataloaders: as in ``Trainer.fit``.
            val_dataloaders: as in ``Trainer.fit``.
            dataloaders: must be ``None``.
            datamodule: as in ``Trainer.fit``.
            method: must be ``"fit"``.
            update_attr: set the module's attributes or hyperparameters to the rates found.
            attr_name: the attribute's name; default: ``generator_lr`` or ``discriminator_lr``. For two players, a
                mapping with both.
            weights_only: of ``ckpt_path``, as in ``Trainer.fit``, but ``None`` is ``True``: ``False`` also loads a
                checkpoint that holds more than plain values, which can run code.
            ckpt_path: a checkpoint to start from.

        All other arguments are fields of ``univnet.gan.tuner.tuner.LRFindOptions``, which describes them.

        Returns:
            The curves, or the grid; ``None`` with ``fast_dev_run``.

        Raises:
            MisconfigurationException: if arguments do not fit together.
            ValueError: if arguments are out of range (it names all of them), or if the player makes no updates yet
                (``"both"`` then warns and returns the generator's curve).
            AttributeError: if the module has no attribute or hyperparameter to set.
        """
        options = LRFindOptions(
            optimizer=optimizer,
            min_lr=min_lr,
            max_lr=max_lr,
            num_training=num_training,
            mode=mode,
            early_stop_threshold=early_stop_threshold,
            monitor=monitor,
            rates=rates,
            ratio=ratio,
            repeats=repeats,
            smoothing=smoothing,
            collapse=collapse,
            validation_batches=validation_batches,
            metric=metric,
            suggest=suggest,
            grid_size=grid_size,
        )
        trainer = self._trainer
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn("Skipping the learning-rate range test since `fast_dev_run` is enabled.")
            return None
        mistakes = Mistakes("Tuner.lr_find")
        mistakes.unless(
            isinstance(model, GANModule),
            f"{type(model).__name__} is no univnet.gan.GANModule: use Lightning's Tuner for models of one optimizer",
        )
        mistakes.unless(
            method == "fit" and dataloaders is None,
            "the learning-rate range test trains: give method='fit' and no dataloaders",
        )
        mistakes.unless(
            not any(isinstance(each, LearningRateFinder) for each in trainer.callbacks),  # type: ignore[attr-defined]
            "the trainer has Lightning's LearningRateFinder: leave it out",
        )
        mistakes.raise_all(MisconfigurationException)
        players = (optimizer,) if optimizer in _PLAYERS else _PLAYERS
        names = _attributes(model, players, attr_name) if update_attr else {}
        data = {"train_dataloaders": train_dataloaders, "val_dataloaders": val_dataloaders, "datamodule": datamodule}
        sweep = Sweep(
            players=players,
            rates=options.points(),
            monitor=_monitors(model, players, monitor, metric),
            ratio=ratio,
            threshold=early_stop_threshold,
            collapse=getattr(model, "collapse_rule", None) if collapse is None else collapse,
            smoothing=smoothing,
            validation_batches=validation_batches,
            metric=metric,
            ckpt_path=ckpt_path,
            weights_only=weights_only is not False,
        )
        found: LRRangeTest | LRGrid
        if optimizer == "grid":
            found = run_grid(trainer, model, sweep, data, num_training, repeats)
        elif optimizer == "both":
            first = range_test(trainer, model, replace(sweep, players=("generator",)), data, repeats)
            rate = first.suggestion(method=suggest, quiet=True)
            second = replace(sweep, players=("discriminator",), fixed={} if rate is None else {"generator": rate})
            try:
                found = LRRangeTest(first.curves | range_test(trainer, model, second, data, repeats).curves)
            except RestingError as error:  # keep the first result
                rank_zero_warn(str(error))
                found = first
        else:
            found = range_test(trainer, model, sweep, data, repeats)
        if update_attr:
            for player, rate in found.suggestions(method=suggest, quiet=not trainer.is_global_zero).items():
                if rate is not None:
                    lightning_setattr(model, names[player], rate)
        return found


def _attributes(model: GANModule, players: Sequence[str], attr_name: str | Mapping[str, str]) -> dict[str, str]:
    if isinstance(attr_name, str):
        if attr_name and len(players) > 1:
            raise MisconfigurationException(
                "there are two learning rates to set: give attr_name as a mapping with both"
            )
        attr_name = {players[0]: attr_name} if attr_name else {}
    names = {player: attr_name.get(player, f"{player}_lr") for player in players}
    if missing := [name for name in names.values() if not lightning_hasattr(model, name)]:
        raise AttributeError(
            f"{type(model).__name__} has no attribute or hyperparameter {' and no '.join(missing)} to set: give "
            f"the name that its optimizer reads as attr_name, or set update_attr=False"
        )
    return names


def _monitors(
    model: GANModule, players: Sequence[str], monitor: str | Mapping[str, str] | None, metric: Any
) -> dict[str, str]:
    """Return what is watched for each player, by name."""
    if metric is not None:
        return dict.fromkeys(players, metric if isinstance(metric, str) else getattr(metric, "__name__", str(metric)))
    if isinstance(monitor, str):
        monitor = {monitor.partition("/")[0] if len(players) > 1 else players[0]: monitor}
    return {**{player: model.watched[player] for player in players}, **(monitor or {})}
