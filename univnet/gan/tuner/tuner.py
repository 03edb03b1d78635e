"""What to find out before training: learning rates and the batch size."""

from collections.abc import Mapping, Sequence
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
        optimizer: whose rate is swept: "generator", "discriminator", "both" one after the other (the second at the
            rate just found), "joint" for both together at a fixed ratio, or "grid" for every pair of a few rates.
        min_lr: the first learning rate.
        max_lr: the last.
        num_training: updates of the swept player, one at each rate; of each pair of rates in a grid.
        mode: equal ratios ("exponential") or differences ("linear") between the rates.
        early_stop_threshold: end where the smoothed loss is this many times the best; ``None`` (null in YAML): do not.
        monitor: the logged term to watch, such as generator/adversarial, or a mapping of one for each player. Of two
            players, a single one is the watched term of the player whose name it begins with. Default: the module's
            ``watched``, for a UnivNet generator/stft and discriminator/loss.
        rates: the learning rates to test, instead of ``min_lr`` to ``max_lr``.
        ratio: the discriminator's rate over the generator's in a joint test; default: as configured.
        repeats: tests from the same weights with other random numbers, of which the curve is the mean.
        smoothing: weight of a neighbour in the smoothed curve, for each point that it is away; 0 to below 1.
        collapse: when the discriminator's test ends because it has won.
        validation_batches: watch the loss on so many validation batches after each update, instead of training's.
        suggest: the method by which the rates are read off the curves.
        grid_size: rates of each player in a grid.

    Raises:
        ValueError: naming every option that is out of range.
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
    collapse: Collapse = Collapse()
    validation_batches: int = 0
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
            said = f"the rates must be 0 < min_lr < max_lr, got {self.min_lr!r} and {self.max_lr!r}"
            mistakes.unless(0 < self.min_lr < self.max_lr, said)
        else:
            said = f"rates must be at least one learning rate above 0, got {list(self.rates)}"
            mistakes.unless(len(self.rates) > 0 and min(self.rates) > 0, said)
        of_a_pair = self.optimizer == "grid"  # the updates at one pair of rates; else one for each rate
        least = {"num_training": 1 if of_a_pair else 2, "repeats": 1, "validation_batches": 0, "grid_size": 2}
        for name, smallest in least.items():
            value = getattr(self, name)
            mistakes.unless(value >= smallest, f"{name} must be at least {smallest}, got {value!r}")
        mistakes.unless(self.ratio is None or self.ratio > 0, f"ratio must be above 0, got {self.ratio!r}")
        mistakes.unless(0 <= self.smoothing < 1, f"smoothing must be at least 0 and below 1, got {self.smoothing!r}")
        one_of("suggest", METHODS)

    def points(self) -> list[float]:
        """Return the learning rates to test; in a grid, those of each player."""
        if self.rates is not None:
            return list(self.rates)
        number = self.grid_size if self.optimizer == "grid" else self.num_training
        return sweep_rates(self.min_lr, self.max_lr, number, self.mode)


class Tuner:
    """Find learning rates and the batch size of a :class:`~univnet.gan.GANModule`, as Lightning's ``Tuner`` does.

    Args:
        trainer: the trainer that is to train the module; both are as before after every search, but for what was found.

    Attributes:
        batch_size_search: how the last batch size was found: the sizes tried, a table, a plot; ``None`` before.
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

        The first thirteen arguments are Lightning's. How it was found is in :attr:`batch_size_search`. Nothing else
        changes; on several ranks all find the same.

        Args:
            model: the module to train. Its ``on_batch_size_trial`` begins what would begin late in training.
            train_dataloaders: not to be given (but for a data module): their size could not be changed.
            val_dataloaders: not to be given.
            dataloaders: not to be given.
            datamodule: as in ``Trainer.fit``.
            method: only ``"fit"``.
            batch_arg_name: the attribute or hyperparameter to set, on the model, the data module or both.

        All other arguments are the fields of :class:`~univnet.gan.tuner.batch_size.BatchSizeOptions`, and described
        there. With ``target_batch``, the micro-batches to accumulate are ``batch_size_search.accumulate``.

        Returns:
            The size, or ``None`` with ``fast_dev_run``.

        Raises:
            MisconfigurationException: loaders were given; there is nothing to set, or places that disagree; the loaders
                do not use it; the trainer has a ``BatchSizeFinder`` callback, or a strategy that cannot take part.
            ValueError: naming every argument that is out of range.
            MemoryError: not even the smallest size fits.
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
                "the batch-size finder cannot be used with dataloaders passed directly, as it could not change them: "
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
        *,
        optimizer: Optimizer = "generator",
        monitor: str | Mapping[str, str] | None = None,
        rates: Sequence[float] | None = None,
        ratio: float | None = None,
        repeats: int = 1,
        smoothing: float = 0.8,
        collapse: Collapse = Collapse(),
        validation_batches: int = 0,
        ckpt_path: Any = None,
        suggest: Method = DEFAULT_METHOD,
        grid_size: int = 5,
    ) -> LRRangeTest | LRGrid | None:
        """Test a range of learning rates in a real training run of a copy of ``model``.

        The first thirteen arguments are Lightning's.

        Args:
            model: the module to tune.
            train_dataloaders: as in ``Trainer.fit``.
            val_dataloaders: as in ``Trainer.fit``.
            dataloaders: not to be given.
            datamodule: as in ``Trainer.fit``.
            method: only ``"fit"``.
            update_attr: set the rates found on the module (its attribute or hyperparameter).
            attr_name: the attribute's name, default ``generator_lr`` or ``discriminator_lr``; for two players a
                mapping of both.
            ckpt_path: a checkpoint to start from.

        All other arguments are the fields of :class:`LRFindOptions`, and described there.

        Returns:
            The curves, or the grid; ``None`` under ``fast_dev_run``.

        Raises:
            MisconfigurationException: for arguments that do not fit together.
            ValueError: naming the arguments that are out of range; where the player makes no updates yet (``"both"``
                warns, and returns the generator's curve).
            AttributeError: where ``update_attr`` has nothing to set.
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
            f"{type(model).__name__} is no univnet.gan.GANModule: Lightning's own Tuner serves models of one optimizer",
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
            monitor=_monitors(model, players, monitor),
            ratio=ratio,
            threshold=early_stop_threshold,
            collapse=collapse,
            smoothing=smoothing,
            validation_batches=validation_batches,
            ckpt_path=ckpt_path,
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
            except RestingError as error:  # what has been found stays found
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
            raise MisconfigurationException("two learning rates are looked for: give attr_name as a mapping of both")
        attr_name = {players[0]: attr_name} if attr_name else {}
    names = {player: attr_name.get(player, f"{player}_lr") for player in players}
    if missing := [name for name in names.values() if not lightning_hasattr(model, name)]:
        raise AttributeError(
            f"{type(model).__name__} has no attribute or hyperparameter {' and no '.join(missing)} to set: name the "
            f"one that its optimizer reads by attr_name, or give update_attr=False"
        )
    return names


def _monitors(model: GANModule, players: Sequence[str], monitor: str | Mapping[str, str] | None) -> dict[str, str]:
    if isinstance(monitor, str):
        monitor = {monitor.partition("/")[0] if len(players) > 1 else players[0]: monitor}
    return {**{player: model.watched[player] for player in players}, **(monitor or {})}
