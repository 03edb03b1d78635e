"""The batch-size finder for two players: the largest micro-batch that fits into memory, or the one that trains fastest.

Each size is tried by training a copy for a few micro-batches (:mod:`~univnet.gan.tuner.batch_size_trial`). On an
accelerator that happens in this process, where running out of memory is an error. On the CPU it means being killed, so
each trial runs in a child process within a budget (:mod:`~univnet.gan.tuner.forked`). On several ranks all try the same
sizes, each by itself, and then agree (:mod:`~univnet.gan.tuner.ranks`).
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
        mode: "power" doubles the size until it does not fit into memory; "binsearch" then searches between the last
            two; "throughput" doubles it too and chooses the smallest size with 98 % of the most examples per second.
        steps_per_trial: full micro-batches of a trial, at least; every player updates its weights in any case. Also
            the batches of each validation loader.
        init_val: the first size tried; if it does not fit, halves of it are, down to 1.
        max_trials: no more sizes than that are tried; with 0, ``init_val`` is set untried.
        margin: share of the largest size that fitted to keep free: the size found is at most
            floor((1 − margin) · largest), and at least 1.
        max_val: try nothing above; nor above the training examples that a rank has in an epoch.
        target_batch: examples of one update, over all ranks. The size found is then made smaller (by less than half)
            where K micro-batches come nearer to it, and K, the micro-batches to accumulate, is found too.
        memory_budget: main memory for each training process with its loader workers, when training on the CPU: such as
            3GiB or 500MB, or a number of bytes. Default: what it holds, and 90 % of what the machine or cgroup has
            free, shared among the ranks.

    Raises:
        ValueError: naming every option that is out of range.
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
        mistakes.unless(self.mode in get_args(Mode), f"`mode` should be either of {get_args(Mode)}, got {self.mode!r}")
        for name, least in {
            "steps_per_trial": 1,
            "init_val": 1,
            "max_trials": 0,
            "max_val": 1,
            "target_batch": 1,
        }.items():
            value = getattr(self, name)
            mistakes.unless(value is None or value >= least, f"`{name}` should be at least {least}, got {value}")
        mistakes.unless(0 <= self.margin < 1, f"`margin` should be between 0 and 1, got {self.margin}")
        try:
            mistakes.unless(self.budget != 0, f"`memory_budget` should be at least 1, got {self.memory_budget}")
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
    """Search as ``options`` say, and set the size found wherever an attribute or hyperparameter ``name`` is.

    Raises:
        MisconfigurationException: the size is nowhere to be set, or in several places that disagree; the loaders do not
            use it; a ``BatchSizeFinder`` is among the callbacks; the strategy cannot take part.
        MemoryError: nothing fits.
        Exception: whatever a trial raised that was not for lack of memory.
    """
    if any(isinstance(each, BatchSizeFinder) for each in trainer.callbacks):  # type: ignore[attr-defined]
        raise MisconfigurationException("the trainer has a BatchSizeFinder callback: remove it to use the Tuner")
    if options.memory_budget is not None and trainer.strategy.root_device.type != "cpu":
        raise MisconfigurationException("memory_budget is for training on the CPU; a device's own memory is its budget")
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
            rank_zero_info(f"memory budget of a process and its loader workers: {mebibytes(self.budget)}")
        with trial(trainer, self.model, [], datamodule=self.datamodule) as twin:
            self._prepare_data(twin)

            def attempt(size: int, probe: bool = False) -> Trial:
                return self._agreed(lambda: self._attempt(twin, callbacks, size, probe))

            examples = attempt(1, probe=True).examples
            cap = options.max_val if examples is None else min(options.max_val, examples)

            def fits(size: int) -> bool:
                self.trials.append(attempt(size))
                rank_zero_info(_line(self.trials[-1]))
                return self.trials[-1].fits

            best = largest(fits, options.init_val, cap, options.mode == "binsearch", options.max_trials)
        return self._result(best, examples)

    def _prepare_data(self, twin: GANModule) -> None:
        """Let the data module do once what each trial would repeat."""
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
                if not probe:  # it has said them all
                    warnings.simplefilter("ignore")
                whole = options.mode == "throughput"
                return run_trial(trainer, module, self.datamodule, size, options.steps_per_trial, whole, probe)

        with alone(trainer):
            if self.budget is None:
                with trial(trainer, twin, [], datamodule=self.datamodule) as copied:
                    return run(copied)
            # The child owns all it sees, the twin too; training would take the memory of one module, not of two.
            weights = sum(each.nbytes for each in (*twin.parameters(), *twin.buffers()))
            try:
                done, memory = forked.run_in_child(lambda: run(twin), self.budget, spare=weights)
            except forked.OutOfBudgetError as error:
                return Trial(size, False, memory=error.memory, reason=reason(error))
            return replace(done, memory=memory)

    def _agreed(self, attempt: Callable[[], Trial]) -> Trial:
        """Return what came of ``attempt`` over all ranks; fail on all if it fails on one."""
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
                f"the {player} rested in the trials, so what memory it takes once it plays is not counted: "
                f"{type(self.model).__name__}.on_batch_size_trial() can begin its game"
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
    took = f"{done.seconds:.3f} s a micro-batch, " if done.fits else ""
    why = f" ({done.reason})" if done.reason else ""
    return f"batch size {done.size}: {outcome(done)}, {took}peak memory {mebibytes(done.memory)}{why}"


def _places(model: Any, datamodule: Any, name: str) -> dict[str, Any]:
    """Return what holds ``name``, in Lightning's order: of several, the last is the one that it reads."""
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
            f"{name} is found neither on the model nor on the data module, nor in their hparams: nothing can be set"
        )
    if len(set(values.values())) > 1:
        said = ", ".join(f"{value} on {where}" for where, value in values.items())
        raise MisconfigurationException(f"{name} is {said}: which one counts is unclear, so keep one of them")


def _set(model: Any, datamodule: Any, name: str, size: int) -> None:
    for place in _places(model, datamodule, name).values():
        if isinstance(place, dict):
            place[name] = size
        else:
            setattr(place, name, size)


# Which sizes to try, and which to keep: arithmetic alone.


def largest(fits: Callable[[int], bool], first: int, cap: int, bisect: bool, max_trials: int) -> int:
    """Return the largest size that fitted; 0 where none did.

    ``min(first, cap)`` is tried first. While all fits it is doubled, up to ``cap``; while nothing fits it is halved,
    down to 1. With ``bisect`` the sizes between the last two are searched as well.

    With L the limit found, there are at most ⌈log2(L / first)⌉ + 2 trials upwards or ⌈log2(first)⌉ + 1 downwards, and
    with ``bisect`` ⌈log2(L)⌉ more; never more than ``max_trials``.
    """
    fitted, failed, size = 0, 0, min(first, cap)
    for _ in range(max_trials):
        if fits(size):
            fitted = size
        else:
            failed = size
        if not failed:
            if fitted == cap:
                break
            size = min(2 * fitted, cap)
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
    """Return ``size`` less the share ``margin`` of it, rounded down, and at least 1."""
    return max(1, int(size * (1 - margin) + 1e-9))  # 1 − 0.1 is a little less than 0.9


def fastest(examples_per_second: dict[int, float], within: float = 0.02) -> int:
    """Return the smallest size whose speed is ``within`` of the best."""
    best = max(examples_per_second.values())
    return min(size for size, speed in examples_per_second.items() if speed >= (1 - within) * best)


def accumulation(target: int, largest: int, ranks: int = 1, examples: int | None = None) -> tuple[int, int]:
    """Return the micro-batch and K for which ``ranks`` · micro-batch · K is nearest to ``target``.

    The micro-batch is at most ``largest`` and more than half of it, unless ``target`` itself is smaller: smaller ones
    would only be slower. Of equally near ones it is the largest. No window holds more than an epoch's ``examples`` (of
    each rank).
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
