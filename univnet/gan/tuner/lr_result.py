"""The result of a learning-rate range test, for one player or both."""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from univnet.gan.tuner.lr_curve import DEFAULT_METHOD, LRCurve, Method

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


class LRRangeTest:
    """The curves of a range test, and the learning rates that they suggest.

    Args:
        curves: each swept player's curve, the generator's first.
        ratio: the discriminator's rate over the generator's, if both were swept together.

    Attributes:
        curves: the curves, by player.
    """

    def __init__(self, curves: Mapping[str, LRCurve], ratio: float | None = None) -> None:
        self.curves, self.ratio = dict(curves), ratio
        if ratio is not None and (limit := self.curves["discriminator"].limit) is not None:
            self.curves["generator"].limit = limit / ratio

    @property
    def results(self) -> dict[str, list[float]]:
        """``{"lr": […], "loss": […]}`` of the first player; of a second, ``discriminator_lr`` and ``…_loss``."""
        first, *others = self.curves.values()
        return first.results | {f"{c.player}_{key}": value for c in others for key, value in c.results.items()}

    def suggestion(
        self, skip_begin: int = 10, skip_end: int = 1, method: Method = DEFAULT_METHOD, quiet: bool = False
    ) -> float | None:
        """Return the first player's learning rate; the arguments are those of ``LRCurve.suggestion``."""
        return next(iter(self.suggestions(skip_begin, skip_end, method, quiet).values()))

    def suggestions(
        self, skip_begin: int = 10, skip_end: int = 1, method: Method = DEFAULT_METHOD, quiet: bool = False
    ) -> dict[str, float | None]:
        """Return each player's learning rate, ``None`` if its curve suggests none.

        If both were swept together, the lower suggestion decides, and the ratio stays.
        """
        found = {name: curve.suggestion(skip_begin, skip_end, method, quiet) for name, curve in self.curves.items()}
        if self.ratio is None:
            return found
        scales = {"generator": 1.0, "discriminator": self.ratio}
        common = min((rate / scales[name] for name, rate in found.items() if rate is not None), default=None)
        return {name: None if common is None else common * scale for name, scale in scales.items()}

    def rows(self) -> Iterator[tuple[Any, ...]]:
        """Yield a table: a header, then a row for each update of each player."""
        yield "player", "lr", "loss", "smoothed"
        for curve in self.curves.values():
            yield from zip([curve.player] * len(curve.lr), curve.lr, curve.raw, curve.loss, strict=True)

    def as_dict(self) -> dict[str, Any]:
        """Return everything in plain types, for JSON."""
        return {"ratio": self.ratio, "curves": {name: curve.as_dict() for name, curve in self.curves.items()}}

    def plot(
        self, suggest: bool = False, show: bool = False, ax: "Axes | Sequence[Axes] | None" = None
    ) -> "Figure | Any":
        """Draw loss against learning rate, the players side by side.

        Args:
            suggest: mark each method's suggestion, and the range to cycle in.
            show: open a window that shows the figure.
            ax: the axes to draw in, one for each player; ``None``: a new figure.

        Returns:
            The figure.
        """
        import matplotlib.pyplot as plt

        if ax is None:
            size = (6.4 * len(self.curves), 4.8)
            ax = plt.figure(figsize=size, layout="constrained").subplots(1, len(self.curves), squeeze=False)[0]
        axes = list(ax) if isinstance(ax, Sequence) or hasattr(ax, "__iter__") else [ax]
        for curve, each in zip(self.curves.values(), axes, strict=True):
            _draw(curve, each, self.suggestions(quiet=True)[curve.player], suggest)
        if show:
            plt.show()
        return axes[0].figure


# They differ in shape as well as colour, for print in black and white.
_MARKERS = {
    "steepest": ("v", "C1"),
    "steep": ("^", "C5"),
    "valley": ("o", "C3"),
    "slide": ("s", "C2"),
    "minimum": ("D", "C4"),
    "edge": ("*", "C6"),
}
_LABELS = {"minimum": "minimum / 10"}


def _draw(curve: LRCurve, ax: "Axes", chosen: float | None, suggest: bool) -> None:
    lr, loss = curve.lr, curve.loss
    ax.plot(lr, curve.raw, ".", color="0.7", markersize=3, label="each update")
    if curve.runs:
        points = list(zip(*curve.runs, strict=True))
        ax.fill_between(
            lr,
            [min(p) for p in points],
            [max(p) for p in points],
            color="C0",
            alpha=0.2,
            linewidth=0,
            label=f"{len(curve.runs)} repeats",
        )
    ax.plot(lr, loss, color="C0", label="smoothed")
    finite = [value for value in loss if math.isfinite(value)]
    if _is_geometric(lr):
        ax.set_xscale("log")
    if finite:
        low_end, high_end = min(finite), max(finite[: len(finite) // 2 + 1])
        ax.set_ylim(low_end - 0.1 * (high_end - low_end or 1), high_end + 0.3 * (high_end - low_end or 1))
    if curve.limit is not None:
        ax.axvline(curve.limit, color="k", linestyle="--", linewidth=1, label=f"collapse at {curve.limit:.2g}")
    if suggest:
        _mark(curve, ax, chosen)
    ax.set(xlabel=f"{curve.player}'s learning rate", ylabel=curve.monitor)
    title = f"{curve.player}: the test ended because {curve.ended}" if curve.ended else curve.player
    if doubt := curve.doubt():
        title += f"\nno basis for a suggestion: {doubt.partition(';')[0]}"
    ax.set_title(title, fontsize="medium", wrap=True)
    ax.grid(alpha=0.3)
    ax.legend(fontsize="small")


def _mark(curve: LRCurve, ax: "Axes", chosen: float | None) -> None:
    for method, rate in curve.suggestions().items():
        if rate is None:
            continue
        marker, color = _MARKERS[method]
        at = min(range(len(curve.lr)), key=lambda i: abs(math.log(curve.lr[i] / rate)))
        name = _LABELS.get(method, method)
        label = f"{name}: {rate:.2g}" + (" (suggested)" if rate == chosen else "")
        size = 11 if rate == chosen else 7
        ax.plot(rate, curve.loss[at], marker, color=color, markersize=size, markeredgecolor="k", label=label)
    if bounds := curve.bounds():
        label = f"to cycle in: {bounds.base_lr:.2g} to {bounds.max_lr:.2g}"
        ax.axvspan(*bounds, color="0.5", alpha=0.12, linewidth=0, label=label)


def _is_geometric(lr: Sequence[float]) -> bool:
    return len(lr) > 2 and lr[0] > 0 and lr[2] - lr[1] > 1.01 * (lr[1] - lr[0])
