"""Train for some updates at every pair of a few learning rates of the two players, from the same start."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Trainer

from univnet.gan.module import GANModule
from univnet.gan.tuner.lr_curve import DEFAULT_METHOD, Method
from univnet.gan.tuner.lr_range_test import Sweep, run_sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

log = logging.getLogger(__name__)


@dataclass
class LRGrid:
    """The losses at each pair of learning rates.

    Attributes:
        monitor: the watched term.
        rates: the learning rates, the same for both players.
        loss: the mean of the term over the last quarter of the updates: a row for each of the discriminator's rates, a
            column for each of the generator's; NaN if training ended early.
        ended: why training ended early, ``""`` if it did not.
        adversarial: whether the watched term depends on the other player.
    """

    monitor: str
    rates: list[float]
    loss: list[list[float]]
    ended: list[list[str]]
    adversarial: bool = False

    @property
    def doubt(self) -> str | None:
        """Why the suggested pair has no basis, in a sentence; ``None`` if it has one."""
        if not self.adversarial:
            return None
        return (
            f"{self.monitor} depends on the other player, so it tells how the two stand and not how good what is "
            f"generated is; watch a reconstruction loss (monitor) or the quality itself (metric)"
        )

    @property
    def results(self) -> dict[str, Any]:
        """``generator_lr`` (columns), ``discriminator_lr`` (rows), and the matrix ``loss``."""
        return {"generator_lr": self.rates, "discriminator_lr": self.rates, "loss": self.loss}

    def suggestions(
        self, skip_begin: int = 0, skip_end: int = 0, method: Method = DEFAULT_METHOD, quiet: bool = False
    ) -> dict[str, float | None]:
        """Return the pair with the lowest loss; of the arguments, those of ``LRRangeTest``, only ``quiet`` counts."""
        loss = np.asarray(self.loss)
        if not np.isfinite(loss).any():
            return {"generator": None, "discriminator": None}
        if not quiet and self.doubt:
            log.warning("There is no basis for the learning rates suggested: %s", self.doubt)
        row, column = np.unravel_index(np.nanargmin(loss), loss.shape)
        return {"generator": self.rates[int(column)], "discriminator": self.rates[int(row)]}

    def suggestion(self) -> float | None:
        """Return the generator's rate in the pair with the lowest loss."""
        return self.suggestions()["generator"]

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield a table: a header, then a row for each pair of rates."""
        yield "generator_lr", "discriminator_lr", "loss", "ended"
        for row, column in np.ndindex(len(self.rates), len(self.rates)):
            yield self.rates[column], self.rates[row], self.loss[row][column], self.ended[row][column]

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain types, for JSON."""
        loss = [[None if np.isnan(value) else value for value in row] for row in self.loss]
        return {**self.results, "loss": loss, "monitor": self.monitor, "ended": self.ended, "doubt": self.doubt}

    def plot(self, suggest: bool = False, show: bool = False, ax: "Axes | None" = None) -> "Figure | Any":
        """Draw a heat map that shows where training ended early; ``suggest`` frames the best pair."""
        import matplotlib.pyplot as plt

        size = 1.1 * len(self.rates) + 2
        ax = ax or plt.figure(figsize=(size + 1, size), layout="constrained").subplots()
        image = ax.imshow(np.ma.masked_invalid(self.loss), origin="lower", cmap="viridis_r", aspect="equal")
        ax.figure.colorbar(image, ax=ax, label=self.monitor)
        for row, column in np.ndindex(len(self.rates), len(self.rates)):
            value, ended = self.loss[row][column], self.ended[row][column]
            text = "collapsed" if "collapsed" in ended else "diverged" if ended else f"{value:.3g}"
            box = {"facecolor": "white", "alpha": 0.8, "linewidth": 0, "pad": 1.5}
            ax.text(column, row, text, ha="center", va="center", fontsize="small", bbox=box)
        best = self.suggestions(quiet=True)
        if suggest and None not in best.values():
            column, row = (self.rates.index(rate) for rate in best.values() if rate is not None)
            frame = plt.Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="C3", linewidth=3)
            ax.add_patch(frame)
        ticks, labels = range(len(self.rates)), [f"{rate:.1e}" for rate in self.rates]
        ax.set_xticks(ticks, labels, rotation=45)
        ax.set_yticks(ticks, labels)
        ax.set(xlabel="generator's learning rate", ylabel="discriminator's learning rate")
        if show:
            plt.show()
        return ax.figure


def run_grid(
    trainer: Trainer, model: GANModule, sweep: Sweep, data: Mapping[str, Any], updates: int, repeats: int = 1
) -> LRGrid:
    """Train copies of ``model`` for ``updates`` generator updates at every pair of ``sweep.rates``."""
    rates = list(sweep.rates)
    cells = [
        [_cell(trainer, model, replace(sweep, rates=[g] * updates, ratio=d / g), data, repeats) for g in rates]
        for d in rates
    ]
    loss, ended = ([[cell[part] for cell in row] for row in cells] for part in (0, 1))
    adversarial = any(cell[2] for row in cells for cell in row)
    return LRGrid(sweep.monitor["generator"], rates, loss, ended, adversarial)  # type: ignore[arg-type]


def _cell(
    trainer: Trainer, model: GANModule, sweep: Sweep, data: Mapping[str, Any], repeats: int
) -> tuple[float, str, bool]:
    """Return the loss at a pair of rates, why training ended early, and whether the loss is adversarial."""
    losses: list[Sequence[float]] = []
    for repeat in range(repeats):
        traces, _ = run_sweep(trainer, model, sweep, data, repeat)
        if len(traces["generator"].lr) < len(sweep.rates):
            ended = next(trace.ended for trace in traces.values() if trace.ended != "")
            return float("nan"), ended, traces["generator"].adversarial
        losses.append(traces["generator"].loss)
    quarter = max(len(sweep.rates) // 4, 1)
    return float(np.mean([loss[-quarter:] for loss in losses])), "", traces["generator"].adversarial
