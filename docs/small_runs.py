"""Short runs of a small model on data/demo, and what TensorBoard shows of them: for the pictures of two pages."""

import contextlib
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from univnet.cli import main as univnet

DOCS = Path(__file__).parent
CONFIG, PICTURES = DOCS / "small.yaml", DOCS / "pictures"
DATA = ["--data.manifest", str(DOCS.parent / "data" / "demo" / "manifest.tsv")]
COLOURS_KEPT = 128  # in a picture
COLOURS = ("#ff7043", "#0077bb", "#009988", "#aa3377")


class Run:
    """A run of ``univnet fit`` with ``options``, which is not done again if ``folder`` holds it.

    Attributes:
        folder: its logs.
        status: its exit status.
        said: its last line on stderr if the status is not 0.
    """

    def __init__(self, folder: Path, *options: object) -> None:
        record = folder / "ended.json"
        if not record.exists():
            logger = "--trainer.logger.init_args"
            where = [f"{logger}.save_dir", folder.parent, f"{logger}.name", folder.name]
            folder.mkdir(parents=True, exist_ok=True)
            status, said = told(["fit", "--config", *map(str, [CONFIG, *DATA, *options, *where])])
            newest = max(folder.glob("version_*"), key=os.path.getmtime, default=None)
            if newest is None:
                raise RuntimeError(f"{folder.name} did not begin: {said}")
            record.write_text(json.dumps({"status": status, "said": said, "folder": newest.name}))
        ended = json.loads(record.read_text())
        self.status, self.said, self.folder = ended["status"], ended["said"], folder / ended["folder"]
        events = EventAccumulator(str(self.folder), size_guidance={"scalars": 0})
        self._events = events.Reload()

    def scalars(self, tag: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the steps and the values that were logged as ``tag``; none if it was not logged."""
        logged = self._events.Scalars(tag) if tag in self._events.Tags()["scalars"] else []
        return np.array([each.step for each in logged]), np.array([each.value for each in logged])

    def at_end(self, tag: str, last: int = 20) -> float:
        """Return the mean of the last values."""
        return float(np.mean(self.scalars(tag)[1][-last:]))

    @property
    def last(self) -> Path:
        """The newest checkpoint."""
        return self.folder / "checkpoints" / "last.ckpt"


def told(argv: Sequence[str]) -> tuple[int, str]:
    """Run a verb in this process; return its exit status and the line that it ends with if that is not 0."""
    heard = io.StringIO()
    try:
        with contextlib.redirect_stderr(heard):
            univnet(list(argv))
    except SystemExit as ended:
        if ended.code:
            return int(ended.code), heard.getvalue().strip().splitlines()[-1]
    return 0, ""


def tensorboard(ax: Axes, tag: str, runs: Mapping[str, Run], smoothing: float = 0.0) -> None:
    """Draw a tag of some runs as TensorBoard does: the values, and over them their moving mean."""
    for colour, (name, run) in zip(COLOURS, runs.items(), strict=False):
        steps, values = run.scalars(tag)
        if smoothing:
            ax.plot(steps, values, color=colour, alpha=0.25, linewidth=1)
            values = smooth(values, smoothing)
        ax.plot(steps, values, color=colour, label=name, linewidth=1.5)
    finish(ax, tag)


def smooth(values: np.ndarray, weight: float) -> np.ndarray:
    """Return TensorBoard's moving mean: exponential, without a bias towards 0 at the start."""
    total, norm, means = 0.0, 0.0, []
    for value in values:
        if np.isfinite(value):
            total, norm = weight * total + (1 - weight) * value, weight * norm + (1 - weight)
        means.append(total / norm if norm else np.nan)
    return np.array(means)


def finish(ax: Axes, title: str, xlabel: str = "generator updates") -> None:
    """Give a panel its title, its grid and, where there is something to tell apart, its legend."""
    ax.set_title(title, loc="left", fontsize=10)
    ax.set_xlabel(xlabel, fontsize=9)
    ax.tick_params(labelsize=8, which="both")
    ax.grid(alpha=0.25)
    if len(ax.get_legend_handles_labels()[1]) > 1:
        ax.legend(fontsize=8, frameon=False)


def panels(count: int, height: float = 2.4) -> tuple[Figure, list[Axes]]:
    """Return a figure with panels side by side."""
    figure = Figure(figsize=(3.4 * count, height), layout="constrained")
    return figure, list(figure.subplots(1, count, squeeze=False)[0])


def save(figure: Figure, name: str) -> None:
    """Write a picture of a page."""
    file = io.BytesIO()
    figure.savefig(file, dpi=90)
    shrink(file, name)


def shrink(file: Path | io.BytesIO, name: str) -> None:
    """Write a picture of a page from a PNG, with a palette, which takes a third of the room."""
    PICTURES.mkdir(exist_ok=True)
    Image.open(file).convert("RGB").quantize(COLOURS_KEPT).save(PICTURES / f"{name}.png", optimize=True)
