"""The batch-size finder for two players: the largest micro-batch that fits into memory, or the one that trains fastest.

Each size is tried by training a copy for a few micro-batches (``batch_size_trial``). On an accelerator this happens in
this process, because running out of memory there raises an error. On the CPU the process would be killed, so each trial
runs in a child process with a memory budget (``forked``). On several ranks each tries the same sizes by itself, and
then they agree (``ranks``).
"""

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from lightning.pytorch import LightningDataModule, Trainer
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from univnet.common.mistakes import Mistakes
from univnet.common.units import byte_count
from univnet.gan.lightning_internals import prepare_data, set_hyperparameters
from univnet.gan.module import GANModule
from univnet.gan.tuner import forked
from univnet.gan.tuner.batch_size_result import BatchSizeSearch, mebibytes, outcome
from univnet.gan.tuner.batch_size_trial import Trial, run_trial, training_callbacks
from univnet.gan.tuner.memory import default_budget, reason
from univnet.gan.tuner.ranks import alone, of_all_ranks, on_all_ranks
from univnet.gan.tuner.sandbox import trial

Mode = Literal["power", "binsearch", "throughput"]


@dataclass(frozen=True)
class BatchSizeOptions:
    """How to look for the batch size.

    Args:
        mode: how the size is looked for; "power" doubles it until it does not fit into memory, "binsearch" then also
            searches between the last two sizes, "throughput" doubles it, too, and chooses the smallest size that
            reaches 98 % of the most examples per second.
        steps_per_trial: least number of full micro-batches in a trial; it goes on until every player has updated its
            weights. Also the number of batches from each validation loader.
        init_val: the first size to try; if it does not fit, it is halved, down to 1.
        max_trials: the largest number of sizes to try; with 0, ``init_val`` is set without a trial.
        margin: share of the largest size that fitted to keep free; the size found is at most
            floor((1 − margin) · largest), and at least 1.
        max_val: the largest size to try. A size above a rank's training examples in an epoch is never tried.
        target_batch: examples of one update, over all ranks. The search then also finds K, the micro-batches to
            accumulate, and lowers the size (by less than half) if K micro-batches then come closer to the target.
        memory_budget: main memory of a training process, such as 3GiB, default: 90 % of what is free; or 500MB, or
            a number of bytes. It is for training on the CPU, and counts the loader workers, too. The default is what
            the process uses already, plus 90 % of what the machine or cgroup has free, divided by the number of ranks.

    Raises:
        ValueError: if options are out of range; it names all of them.
    """

    mode: Mode = "power"
    steps_per_trial: int = 3
    init_val: int = 2
    max_trials: int = 25
    margin: float = 0.05
    max_val: int = 8192
    target_batch: int | None = None
    memory_budget: int | str | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "mode", self.mode.lower())
        mistakes = Mistakes("batch-size search")
        mistakes.unless(self.mode in get_args(Mode), f"`mode` must be one of {get_args(Mode)}, got {self.mode!r}")
        for name, least in {
            "steps_per_trial": 1,
            "init_val": 1,
            "max_trials": 0,
            "max_val": 1,
            "target_batch": 1,
        }.items():
            value = getattr(self, name)
            mistakes.unless(value is None or value >= least, f"`{name}` must be at least {least}, got {value}")
        mistakes.unless(0 <= self.margin < 1, f"`margin` must be between 0 and 1, got {self.margin}")
        try:
            mistakes.unless(self.budget != 0, f"`memory_budget` must be at least 1, got {self.memory_budget}")
        except ValueError as error:
            mistakes.add([f"`memory_budget` is {error}"])
        mistakes.raise_all()

    @property
    def budget(self) -> int | None:
        """``memory_budget`` in bytes."""
        return None if self.memory_budget is None else byte_count(self.memory_budget)


def find_batch_size(
    trainer: Trainer, model: GANModule, datamodule: LightningDataModule | None, options: BatchSizeOptions, name: str
) -> BatchSizeSearch:
    """Search with these ``options``, and set every attribute or hyperparameter ``name`` to the size found.

    Raises:
        MisconfigurationException: if there is no such attribute or hyperparameter, or several with different values; if
            the loaders do not use it; if the trainer has a ``BatchSizeFinder`` or a strategy that is not supported.
        MemoryError: if no size fits.
        Exception: any other error that a trial raises.
    """
    if any(isinstance(each, BatchSizeFinder) for each in trainer.callbacks):  # type: ignore[attr-defined]
        raise MisconfigurationException("the trainer has a BatchSizeFinder callback: remove it to use the Tuner")
    if options.memory_budget is not None and trainer.strategy.root_device.type != "cpu":
        raise MisconfigurationException(
            "memory_budget is for training on the CPU; on a device the budget is its own memory"
        )
    _check_places(model, datamodule, name)
    found: BatchSizeSearch = on_all_ranks(trainer, _Search(trainer, model, datamodule, options, name).run)
    _set(model, datamodule, name, found.size)
    return found


class _Search:
    def __init__(
        self,
        trainer: Trainer,
        model: GANModule,
        datamodule: LightningDataModule | None,
        options: BatchSizeOptions,
        name: str,
    ) -> None:
        self.trainer, self.model, self.datamodule = trainer, model, datamodule
        self.options, self.name = options, name
        self.trials: list[Trial] = []
        self.budget: int | None = None

    def run(self) -> BatchSizeSearch:
        options, trainer = self.options, self.trainer
        callbacks = training_callbacks(trainer)
        if trainer.strategy.root_device.type == "cpu" and forked.available():
            self.budget = options.budget or default_budget(trainer.num_devices)
            rank_zero_info(f"memory budget for a process and its loader workers: {mebibytes(self.budget)}")
        with trial(trainer, self.model, [], datamodule=self.datamodule) as twin:
            self._prepare_data(twin)

            def attempt(size: int, probe: bool = False) -> Trial:
                return self._agreed(lambda: self._attempt(twin, callbacks, size, probe))

            examples = attempt(1, probe=True).examples
            most = options.max_val if examples is None else min(options.max_val, examples)

            def fits(size: int) -> bool:
                self.trials.append(attempt(size))
                rank_zero_info(_line(self.trials[-1]))
                return self.trials[-1].fits

            best = largest(fits, options.init_val, most, options.mode == "binsearch", options.max_trials)
        return self._result(best, examples)

    def _prepare_data(self, twin: GANModule) -> None:
        """Prepare the data module once, instead of in each trial."""
        prepare_data(self.trainer, twin, self.datamodule)
        if self.datamodule is not None:
            self.datamodule.setup("fit")

    def _attempt(self, twin: GANModule, callbacks: list[Any], size: int, probe: bool) -> Trial:
        """Try ``size`` on this rank."""
        trainer, options = self.trainer, self.options

        def run(module: GANModule) -> Trial:
            trainer.callbacks = copy.deepcopy(callbacks)  # type: ignore[attr-defined]
            _set(module, self.datamodule, self.name, size)
            with warnings.catch_warnings():
                if not probe:  # the probe has shown all warnings
                    warnings.simplefilter("ignore")
                whole = options.mode == "throughput"
                return run_trial(trainer, module, self.datamodule, size, options.steps_per_trial, whole, probe)

        with alone(trainer):
            if self.budget is None:
                with trial(trainer, twin, [], datamodule=self.datamodule) as copied:
                    try:
                        return run(copied)
                    finally:
                        del copied  # nothing may refer to it when the trial frees the device's memory
            # The child also holds the twin, so it has two copies of the module; training needs only one.
            weights = sum(each.nbytes for each in (*twin.parameters(), *twin.buffers()))
            try:
                done, memory = forked.run_in_child(lambda: run(twin), self.budget, spare=weights)
            except forked.OutOfBudgetError as error:
                return Trial(size, False, memory=error.memory, reason=reason(error))
            return replace(done, memory=memory)

    def _agreed(self, attempt: Callable[[], Trial]) -> Trial:
        """Return the outcome of ``attempt`` over all ranks; fail on all ranks if it fails on one."""
        failure: BaseException | None = None
        mine: Trial | str
        try:
            mine = attempt()
        except BaseException as error:
            failure, mine = error, f"{type(error).__name__}: {error}"
        everyone = of_all_ranks(self.trainer, mine)
        if failure is not None:
            raise failure
        for rank, theirs in enumerate(everyone):
            if isinstance(theirs, str):
                raise RuntimeError(f"a trial failed on rank {rank}: {theirs}")
        failed = [each for each in everyone if not each.fits]
        return Trial(
            size=everyone[0].size,
            fits=not failed,
            seconds=0.0 if failed else max(each.seconds for each in everyone),
            memory=max((each.memory for each in everyone if each.memory is not None), default=None),
            examples=min((each.examples for each in everyone if each.examples is not None), default=None),
            reason=failed[0].reason if failed else "",
            resting=everyone[0].resting,
        )

    def _result(self, best: int, examples: int | None) -> BatchSizeSearch:
        options, ranks = self.options, self.trainer.world_size
        if not best and self.trials:
            last = self.trials[-1]
            even = "even " if last.size == 1 else f"in {len(self.trials)} trials, "
            raise MemoryError(f"{even}{self.name}={last.size} does not fit into memory: {last.reason}")
        for player in {name for each in self.trials for name in each.resting}:
            rank_zero_warn(
                f"the {player} was not trained in the trials, so the memory that its training takes is not counted: "
                f"let {type(self.model).__name__}.on_batch_size_trial() begin its training"
            )
        size = with_margin(best, options.margin) if best else options.init_val
        if options.mode == "throughput" and best:
            size = min(size, fastest({each.size: each.examples_per_second for each in self.trials if each.fits}))
        accumulate = None
        if options.target_batch is not None:
            size, accumulate = accumulation(options.target_batch, size, ranks, examples)
        return BatchSizeSearch(
            size,
            best,
            options.mode,
            options.margin,
            tuple(self.trials),
            ranks,
            examples,
            self.budget,
            options.target_batch,
            accumulate,
        )


def _line(done: Trial) -> str:
    took = f"{done.seconds:.3f} s per micro-batch, " if done.fits else ""
    why = f" ({done.reason})" if done.reason else ""
    return f"batch size {done.size}: {outcome(done)}, {took}peak memory {mebibytes(done.memory)}{why}"


def _places(model: Any, datamodule: Any, name: str) -> dict[str, Any]:
    """Return the owners of an attribute or hyperparameter ``name``, in Lightning's order: it reads the last."""
    places = {}
    for what, owner in (("model", model), ("data module", datamodule)):
        if owner is None:
            continue
        if hasattr(owner, name):
            places[f"the {what}"] = owner
        if name in set_hyperparameters(owner):
            places[f"the {what}'s hparams"] = owner.hparams
    return places


def _check_places(model: Any, datamodule: Any, name: str) -> None:
    places = _places(model, datamodule, name)
    values = {
        where: place[name] if isinstance(place, dict) else getattr(place, name) for where, place in places.items()
    }
    if not values:
        raise MisconfigurationException(
            f"{name} is found neither on the model nor on the data module, nor in their hparams, so it cannot be set"
        )
    if len(set(values.values())) > 1:
        different = ", ".join(f"{value} on {where}" for where, value in values.items())
        raise MisconfigurationException(f"{name} is {different}: it is unclear which one is used, so keep only one")


def _set(model: Any, datamodule: Any, name: str, size: int) -> None:
    for place in _places(model, datamodule, name).values():
        if isinstance(place, dict):
            place[name] = size
        else:
            setattr(place, name, size)


# Which sizes to try, and which one to choose: pure arithmetic.


def largest(fits: Callable[[int], bool], first: int, most: int, bisect: bool, max_trials: int) -> int:
    """Return the largest size that fitted; 0 if none did.

    ``min(first, most)`` is tried first. It is doubled, up to ``most``, as long as every size fits, or halved, down to
    1, until one fits. With ``bisect`` the sizes between the last two are searched, too.

    If L is the limit found, there are at most ⌈log2(L / first)⌉ + 2 trials upwards or ⌈log2(first)⌉ + 1 downwards, and
    with ``bisect`` ⌈log2(L)⌉ more; never more than ``max_trials``.
    """
    fitted, failed, size = 0, 0, min(first, most)
    for _ in range(max_trials):
        if fits(size):
            fitted = size
        else:
            failed = size
        if not failed:
            if fitted == most:
                break
            size = min(2 * fitted, most)
        elif not fitted:
            if failed == 1:
                break
            size = failed // 2
        elif bisect and failed - fitted > 1:
            size = (fitted + failed) // 2
        else:
            break
    return fitted


def with_margin(size: int, margin: float) -> int:
    """Return (1 − ``margin``) · ``size``, rounded down, and at least 1."""
    return max(1, int(size * (1 - margin) + 1e-9))  # 1 − 0.1 is a little less than 0.9


def fastest(examples_per_second: dict[int, float], within: float = 0.02) -> int:
    """Return the smallest size whose speed is at least (1 − ``within``) times the best."""
    best = max(examples_per_second.values())
    return min(size for size, speed in examples_per_second.items() if speed >= (1 - within) * best)


def accumulation(target: int, largest: int, ranks: int = 1, examples: int | None = None) -> tuple[int, int]:
    """Return the micro-batch size and K for which ``ranks`` · size · K is closest to ``target``.

    The size is at most ``largest`` and more than half of it, because smaller ones would only be slower, unless
    ``target`` itself is smaller. Among equally close sizes it is the largest. No window holds more than an epoch's
    ``examples`` (of each rank).
    """
    if examples is not None:
        target = min(target, ranks * examples)
    largest = min(largest, -(-target // ranks))
    choices = []
    for size in range(largest // 2 + 1, largest + 1):
        below = max(1, target // (ranks * size))
        choices += [(abs(ranks * size * k - target), -size, k) for k in (below, below + 1)]
    _, size, k = min(choices)
    return -size, k
