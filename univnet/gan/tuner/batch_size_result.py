"""The result of a batch-size search, as a table, a plot and a configuration."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from univnet.gan.tuner.batch_size_trial import Trial

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_PLAYERS = ("generator", "discriminator")


@dataclass(frozen=True)
class BatchSizeSearch:
    """The result of ``Tuner.scale_batch_size``.

    Attributes:
        size: the batch size to train with: examples in a micro-batch of each rank.
        largest: the largest size that fitted; ``size`` is smaller by the margin.
        mode: the mode of the search.
        margin: the share of ``largest`` that is kept free.
        trials: every size tried, in order, with the outcome over all ranks.
        ranks: the number of processes that train together.
        examples: the examples in an epoch of one rank; ``None`` for iterable datasets.
        budget: bytes of main memory allowed for a process and its loader workers; ``None`` on an accelerator.
        target_batch: the wanted examples per update; ``None`` if none were given.
        accumulate: K, the micro-batches per update that come closest to ``target_batch``, for both players.
    """

    size: int
    largest: int
    mode: str
    margin: float
    trials: Sequence[Trial]
    ranks: int = 1
    examples: int | None = None
    budget: int | None = None
    target_batch: int | None = None
    accumulate: int | None = None

    @property
    def effective_batch(self) -> int:
        """Examples in one update, over all ranks."""
        return self.size * self.ranks * (self.accumulate or 1)

    def config(self, batch_size: str = "data.batch_size") -> dict[str, int]:
        """Return what was found, by dotted keys of a configuration; ``batch_size`` is the batch size's key."""
        found = {batch_size: self.size}
        if self.accumulate is not None:
            found |= {f"model.{player}_updates.accumulate": self.accumulate for player in _PLAYERS}
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return everything in plain types, for JSON."""
        trials = [asdict(each) | {"examples_per_second": each.examples_per_second} for each in self.trials]
        return asdict(self) | {"trials": trials, "effective_batch": self.effective_batch}

    def table(self) -> str:
        """Return the trials as a text table, sorted by size."""
        rows = [("size", "outcome", "s/micro-batch", "examples/s", "peak memory")]
        for each in sorted(self.trials, key=lambda each: each.size):
            speed = (f"{each.seconds:.3f}", f"{each.examples_per_second:.1f}") if each.fits else ("", "")
            rows.append((str(each.size), outcome(each), *speed, mebibytes(each.memory)))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)

    def __str__(self) -> str:
        """Say what was found."""
        whole_epoch = ", all the examples of an epoch" if self.largest == self.examples else ""
        text = f"batch size {self.size}; the largest that fitted is {self.largest}{whole_epoch}"
        if self.accumulate is not None and self.target_batch is not None:
            off = self.effective_batch - self.target_batch
            ranks = f" on each of {self.ranks} ranks" if self.ranks > 1 else ""
            exact = "" if off == 0 else f", {abs(off)} {'more' if off > 0 else 'fewer'} than asked for"
            if self.examples is not None and self.target_batch > self.examples * self.ranks:
                exact += f" (an update cannot be longer than an epoch of {self.examples * self.ranks})"
            batches = f"{self.accumulate} micro-batch{'es' if self.accumulate > 1 else ''}"
            text += f"; updates of {batches}{ranks} have {self.effective_batch} examples{exact}"
        return text

    def plot(self) -> "Figure":
        """Draw throughput and peak memory against the batch size, and mark the chosen size."""
        from matplotlib.figure import Figure

        fitted = sorted((each for each in self.trials if each.fits), key=lambda each: each.size)
        failed = [each.size for each in self.trials if not each.fits]
        sizes = [each.size for each in fitted]
        figure = Figure(figsize=(6, 5), layout="constrained")
        speed, memory = figure.subplots(2, 1, sharex=True)
        speed.plot(sizes, [each.examples_per_second for each in fitted], "o-", color="tab:blue")
        speed.set_ylabel("examples / s per rank")
        known = [each for each in fitted if each.memory is not None]
        memory.plot(
            [each.size for each in known], [(each.memory or 0) / 2**30 for each in known], "o-", color="tab:red"
        )
        if self.budget is not None:
            memory.axhline(self.budget / 2**30, linestyle=":", color="grey", label="budget")
        memory.set_ylabel("peak memory / GiB")
        memory.set_xlabel("batch size")
        memory.set_xscale("log", base=2)
        for axes in (speed, memory):
            axes.axvline(self.size, linestyle="--", color="black", label=f"chosen: {self.size}")
            for number, size in enumerate(failed):
                axes.axvline(size, color="tab:orange", alpha=0.5, label=None if number else "did not fit")
            axes.set_ylim(bottom=0)
            axes.grid(alpha=0.3)
        memory.legend()
        return figure


def outcome(trial: Trial) -> str:
    """Return in words whether the trial's size fits."""
    return "fits" if trial.fits else "does not fit"


def mebibytes(count: int | None) -> str:
    """Return a number of bytes as text in MiB."""
    return "unknown" if count is None else f"{count / 2**20:.0f} MiB"
