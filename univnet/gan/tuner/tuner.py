"""What to find out before training: learning rates and the batch size."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.parsing import lightning_hasattr, lightning_setattr

from univnet.gan.module import GANModule
from univnet.gan.tuner.batch_size import Plan, find_batch_size
from univnet.gan.tuner.batch_size_result import BatchSizeSearch
from univnet.gan.tuner.lr_curve import DEFAULT_METHOD, METHODS, Method
from univnet.gan.tuner.lr_grid import LRGrid, run_grid
from univnet.gan.tuner.lr_range_test import Collapse, Mode, RestingError, Sweep, range_test, sweep_rates
from univnet.gan.tuner.lr_result import LRRangeTest

Optimizer = Literal["generator", "discriminator", "joint", "both", "grid"]
_PLAYERS = ("generator", "discriminator")


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
        mode: str = "power",
        steps_per_trial: int = 3,
        init_val: int = 2,
        max_trials: int = 25,
        batch_arg_name: str = "batch_size",
        margin: float = 0.05,
        max_val: int = 8192,
        *,
        target_batch: int | None = None,
        memory_budget: int | None = None,
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
            mode: ``"power"`` doubles the size until it does not fit; ``"binsearch"`` then searches between the last
                two; ``"throughput"`` doubles it too and chooses the smallest size with 98 % of the most examples a
                second.
            steps_per_trial: full micro-batches of a trial, at least; every player updates its weights in any case.
                Also the batches of each validation loader.
            init_val: the first size tried; if it does not fit, halves of it are, down to 1.
            max_trials: no more sizes than that are tried; with 0, ``init_val`` is set untried.
            batch_arg_name: the attribute or hyperparameter to set, on the model, the data module or both.
            margin: share of the largest size that fitted to keep free: the size found is at most
                ``floor((1 − margin) · largest)``, and at least 1.
            max_val: try nothing above; nor above the training examples that a rank has in an epoch.
            target_batch: examples of one update, over all ranks. The size found is then made smaller (by less than
                half) where K micro-batches come nearer to it; K is ``batch_size_search.accumulate``.
            memory_budget: bytes of main memory for each training process with its loader workers, when training on the
                CPU. Default: what it holds, and 90 % of what the machine or cgroup has free, shared among the ranks.

        Returns:
            The size, or ``None`` with ``fast_dev_run``.

        Raises:
            MisconfigurationException: loaders were given; there is nothing to set, or places that disagree; the loaders
                do not use it; the trainer has a ``BatchSizeFinder`` callback, or a strategy that cannot take part.
            ValueError: naming every argument that is out of range.
            MemoryError: not even the smallest size fits.
        """
        plan = Plan(
            mode, steps_per_trial, init_val, max_trials, batch_arg_name, margin, max_val, target_batch, memory_budget
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
        self.batch_size_search = find_batch_size(self._trainer, model, datamodule, plan)
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
            min_lr: the first learning rate.
            max_lr: the last.
            num_training: updates of the swept player, one at each rate; of each pair of rates in a grid.
            mode: ``"exponential"`` or ``"linear"`` steps between the rates.
            early_stop_threshold: end where the smoothed loss is this many times the best; ``None``: do not.
            update_attr: set the rates found on the module (its attribute or hyperparameter).
            attr_name: the attribute's name, default ``generator_lr`` or ``discriminator_lr``; for two players a
                mapping of both.
            optimizer: whose rate is swept: ``"generator"``, ``"discriminator"``, both players' one after the other
                (``"both"``: the second test at the rate just found), both at a fixed ratio (``"joint"``), or every
                pair of ``grid_size`` rates each (``"grid"``). A player that is not swept trains at its own rate.
            monitor: the logged term to watch, such as ``generator/adversarial``, or one for each player. Of two
                players, a single one is the watched term of the player whose name it begins with. Default: the
                module's ``watched``.
            rates: the learning rates to test, instead of ``min_lr`` to ``max_lr``.
            ratio: the discriminator's rate over the generator's in a joint test; default: as configured.
            repeats: tests from the same weights with other random numbers, of which the curve is the mean.
            smoothing: weight of a neighbour in the smoothed curve, for each point that it is away; 0 to below 1.
            collapse: when the discriminator's test ends because it has won.
            validation_batches: watch the loss on so many validation batches after each update, instead of training's.
            ckpt_path: a checkpoint to start from.
            suggest: the method by which the rates are suggested.
            grid_size: rates of each player in a grid.

        Returns:
            The curves, or the grid; ``None`` under ``fast_dev_run``.

        Raises:
            MisconfigurationException: for arguments that do not fit together.
            ValueError: naming the arguments that are out of range; where the player makes no updates yet (``"both"``
                warns, and returns the generator's curve).
            AttributeError: where ``update_attr`` has nothing to set.
        """
        trainer = self._trainer
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            rank_zero_warn("Skipping the learning-rate range test since `fast_dev_run` is enabled.")
            return None
        if method != "fit" or dataloaders is not None:
            raise MisconfigurationException("the learning-rate range test trains: give method='fit' and no dataloaders")
        if any(isinstance(callback, LearningRateFinder) for callback in trainer.callbacks):  # type: ignore[attr-defined]
            raise MisconfigurationException("the trainer has Lightning's LearningRateFinder: leave it out")
        _check(model, optimizer, repeats, smoothing, suggest, grid_size)
        players = (optimizer,) if optimizer in _PLAYERS else _PLAYERS
        names = _attributes(model, players, attr_name) if update_attr else {}
        data = {"train_dataloaders": train_dataloaders, "val_dataloaders": val_dataloaders, "datamodule": datamodule}
        points = grid_size if optimizer == "grid" else num_training
        sweep = Sweep(
            players=players,
            rates=sweep_rates(min_lr, max_lr, points, mode) if rates is None else list(rates),
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


def _check(model: Any, optimizer: str, repeats: int, smoothing: float, suggest: str, grid_size: int) -> None:
    if not isinstance(model, GANModule):
        raise MisconfigurationException(
            f"{type(model).__name__} is no univnet.gan.GANModule: Lightning's own Tuner serves models of one optimizer"
        )
    rules = {
        f"optimizer must be one of {', '.join(get_args(Optimizer))}, got {optimizer!r}": (
            optimizer in get_args(Optimizer)
        ),
        f"repeats must be at least 1, got {repeats}": repeats >= 1,
        f"smoothing must be at least 0 and below 1, got {smoothing}": 0 <= smoothing < 1,
        f"suggest must be one of {', '.join(METHODS)}, got {suggest!r}": suggest in METHODS,
        f"grid_size must be at least 2, got {grid_size}": grid_size >= 2,
    }
    if wrong := [rule for rule, kept in rules.items() if not kept]:
        raise ValueError("; ".join(wrong))


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
