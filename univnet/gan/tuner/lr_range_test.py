"""The learning-rate range test of two players (Smith 2017, arXiv 1506.01186, §3.3).

A copy of the module is trained while one player's rate (or both players', at a fixed ratio) rises with every update,
until the loss diverges or the discriminator collapses; the loss is recorded against the rate.
"""

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from univnet.gan.lightning_internals import training_loaders
from univnet.gan.module import GANModule
from univnet.gan.play.dependence import note_adversarial_terms
from univnet.gan.play.evaluation import FixedBatches, Quality
from univnet.gan.tuner.lr_curve import LRCurve, smoothed
from univnet.gan.tuner.lr_result import LRRangeTest
from univnet.gan.tuner.sandbox import trial
from univnet.gan.updates import Player

_NONFINITE_TO_STOP = 3  # losses in a row that are not finite end the test
_LONGEST_REST = 32  # micro-batches in a row without a part in them, after which a player counts as not training yet
_BATCHES = 4  # for a metric, if no number is given


Mode = Literal["exponential", "linear"]


def sweep_rates(min_lr: float, max_lr: float, number: int, mode: Mode = "exponential") -> list[float]:
    """Return ``number`` ≥ 2 rates from ``min_lr`` to ``max_lr``, with equal ratios or differences."""
    if mode == "linear":
        return [min_lr + i / (number - 1) * (max_lr - min_lr) for i in range(number)]
    return [min_lr * (max_lr / min_lr) ** (i / (number - 1)) for i in range(number)]


@dataclass(frozen=True)
class Collapse:
    """When the discriminator counts as collapsed: it has won, so the generator can learn nothing from it.

    Which rule is right depends on the loss: both are made for least squares, the first also for other losses that are
    0 for a discriminator that has won (hinge, cross-entropy). A Wasserstein loss has none. For a rule of its own,
    a subclass overrides ``seen``.

    Args:
        loss: it has collapsed if its loss falls to this share of its first loss; 0 switches the rule off. Negative
            losses do not count.
        separation: it has collapsed if its mean scores of real and of generated examples (the terms ``real_score`` and
            ``fake_score`` of its loss, if it has them) differ by this much. Least-squares losses pull them to 1 and 0.
            ``None`` switches the rule off.
    """

    loss: float = 0.05
    separation: float | None = 0.95

    def seen(self, report: Mapping[str, float], first_loss: float) -> str | None:
        """Return why a discriminator with this report counts as collapsed; ``None`` if it does not."""
        if self.loss and 0 <= report["loss"] <= self.loss * first_loss:
            return f"its loss fell to {report['loss']:.2g}, from {first_loss:.2g} at first"
        if self.separation is not None and {"real_score", "fake_score"} <= report.keys():
            real, fake = report["real_score"], report["fake_score"]
            if real - fake >= self.separation:
                return f"it scores real examples {real:.2g} and generated ones {fake:.2g}"
        return None


def diverges(losses: Sequence[float], threshold: float | None, smoothing: float) -> bool:
    """Whether the last of ``losses``, smoothed, has risen to ``threshold`` times the lowest before it.

    Smoothing only uses the past, and nothing diverges before there is enough of it. A multiple of a negative loss is
    meaningless: then the rise is relative to the largest magnitude up to the lowest loss.
    """
    finite = [loss for loss in losses if math.isfinite(loss)]
    settled = round(1 / (1 - smoothing))  # updates that the smoothing averages over
    if threshold is None or len(finite) <= settled or not math.isfinite(losses[-1]):
        return False
    total = weight = 0.0
    past = []
    for loss in finite:
        total, weight = smoothing * total + loss, smoothing * weight + 1
        past.append(total / weight)
    *past, last = past[settled - 1 :]
    best = past.index(min(past))
    scale = past[best] if min(past[best], last) > 0 else max(map(abs, past[: best + 1]))
    return last > past[best] + (threshold - 1) * scale


class RestingError(ValueError):
    """The player whose rate is swept makes no updates yet."""


@dataclass(frozen=True)
class Sweep:
    """The settings of one sweep.

    Attributes:
        players: the players whose rates are swept; the first one's updates are counted.
        rates: the first player's rates, one for each of its updates.
        monitor: the watched term of each of ``players``, such as ``generator/stft``.
        ratio: the second player's rate over the first one's; ``None``: as in their optimizers.
        fixed: constant rates for players that are not swept, instead of their own.
        threshold: end when the smoothed loss is this many times the lowest; ``None``: do not.
        collapse: when the discriminator counts as collapsed; ``None``: never.
        smoothing: the weight of a neighbour in the smoothed curve.
        validation_batches: watch the loss on this many validation batches instead of the training loss.
        metric: watch this instead of a loss.
        ckpt_path: a checkpoint to start from.
        weights_only: load it without unpickling code.
    """

    players: tuple[str, ...]
    rates: Sequence[float]
    monitor: Mapping[str, str]
    ratio: float | None = None
    fixed: Mapping[str, float] = field(default_factory=dict)
    threshold: float | None = 4.0
    collapse: Collapse | None = None
    smoothing: float = 0.8
    validation_batches: int = 0
    metric: str | Quality | None = None
    ckpt_path: Any = None
    weights_only: bool = True


@dataclass
class Trace:
    """One player's rates and losses in one run."""

    lr: list[float] = field(default_factory=list)
    loss: list[float] = field(default_factory=list)
    limit: float | None = None
    ended: str = ""
    adversarial: bool = False


def range_test(
    trainer: Trainer, model: GANModule, sweep: Sweep, data: Mapping[str, Any], repeats: int = 1
) -> LRRangeTest:
    """Run ``sweep`` on copies of ``model``, ``repeats`` times with other random numbers; return the curves."""
    runs = [run_sweep(trainer, model, sweep, data, repeat) for repeat in range(repeats)]
    curves = {name: _curve(name, [traces[name] for traces, _ in runs], sweep) for name in sweep.players}
    return LRRangeTest(curves, runs[0][1] if len(sweep.players) > 1 else None)


def run_sweep(
    trainer: Trainer, model: GANModule, sweep: Sweep, data: Mapping[str, Any], repeat: int = 0
) -> tuple[dict[str, Trace], float | None]:
    """Train a copy of ``model`` while the rates rise. Return each swept player's trace, and the ratio of the rates."""
    callback = _SweepCallback(sweep, repeat, trainer.progress_bar_callback is not None)
    with trial(trainer, model, [callback], **data) as twin:
        trainer.limit_val_batches = 0
        try:
            trainer.fit(twin, **data, ckpt_path=sweep.ckpt_path, weights_only=sweep.weights_only)
        finally:
            del twin  # so that the trial can free the device's memory
    return callback.traces, callback.ratio


def _curve(player: str, traces: Sequence[Trace], sweep: Sweep) -> LRCurve:
    """Return the mean of the ``traces``, as long as the shortest of them."""
    shortest = min(traces, key=lambda trace: len(trace.lr))
    length = len(shortest.lr)
    raw = np.mean([trace.loss[:length] for trace in traces], axis=0).tolist() if length else []
    return LRCurve(
        player=player,
        monitor=sweep.monitor[player],
        lr=shortest.lr,
        raw=raw,
        smoothing=sweep.smoothing,
        runs=[smoothed(trace.loss[:length], sweep.smoothing) for trace in traces] if len(traces) > 1 else [],
        limit=min((trace.limit for trace in traces if trace.limit is not None), default=None),
        ended=shortest.ended,
        adversarial=any(trace.adversarial for trace in traces),
    )


class _SweepCallback(Callback):
    """Sets the rates before a window opens, and records the loss when it has closed."""

    def __init__(self, sweep: Sweep, repeat: int, progress: bool) -> None:
        self.sweep, self.repeat, self.progress = sweep, repeat, progress
        self.ratio = sweep.ratio
        self.traces = {player: Trace() for player in sweep.players}
        self._lead = sweep.players[0]
        self._own: dict[str, list[float]] = {}  # the rates of each player's parameter groups, before the test
        self._micro_batches_before: dict[str, int] = {}
        self._rests = dict.fromkeys(sweep.players, 0)  # micro-batches in a row
        self._first_loss: float | None = None
        self._validation: FixedBatches | None = None
        self._quality: float | None = None  # after this micro-batch
        self._bar: Any = None

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the run's limits, after the schedulers were made for its configured length."""
        trainer.fit_loop.max_epochs, trainer.fit_loop.epoch_loop.max_steps = -1, -1
        trainer.fit_loop.min_epochs, trainer.fit_loop.epoch_loop.min_steps = None, None

    def on_train_start(self, trainer: Trainer, pl_module: GANModule) -> None:  # type: ignore[override]
        """Pause the schedulers of the swept players, and use other random numbers in every repeat."""
        pl_module.schedules.held |= {*self.sweep.players, *self.sweep.fixed}
        pl_module.schedules.patient = True  # those of the other player
        if self.repeat:
            _reseed(trainer, self.repeat)
        batches, metric = self.sweep.validation_batches, self.sweep.metric
        if metric is not None:
            self._validation = FixedBatches(trainer, pl_module, batches or _BATCHES, or_training=callable(metric))
        elif batches:
            self._validation = FixedBatches(trainer, pl_module, batches)
        if metric is None:
            self._note_adversarial(pl_module)
        if self.progress and trainer.is_global_zero:
            swept = " and ".join(self.sweep.players)
            self._bar = Tqdm(
                desc=f"Learning rate of the {swept}", total=len(self.sweep.rates), leave=False, disable=None
            )

    def on_train_batch_start(  # type: ignore[override]
        self, trainer: Trainer, pl_module: GANModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the rates for the window that this micro-batch belongs to."""
        players = pl_module.updates
        self._micro_batches_before = {name: player.micro_batches for name, player in players.items()}
        self._quality = None
        if not self._own:
            self._own = {name: [float(g["lr"]) for g in _groups(player)] for name, player in players.items()}
        if players[self._lead].position == 0:
            rate = self.sweep.rates[len(self.traces[self._lead].lr)]
            rates = {self._lead: rate, **self.sweep.fixed}
            for follower in self.sweep.players[1:]:
                if self.ratio is None:
                    self.ratio = self._own[follower][0] / self._own[self._lead][0]
                rates[follower] = self.ratio * rate
            for name, rate in rates.items():
                first = self._own[name][0]
                for group, own in zip(_groups(players[name]), self._own[name], strict=True):
                    group["lr"] = rate * own / first if own != first else rate  # groups keep their ratios

    def on_train_batch_end(  # type: ignore[override]
        self, trainer: Trainer, pl_module: GANModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Record the losses of the updates just made, and end the run if the test is over."""
        for name, trace in self.traces.items():
            player = pl_module.updates[name]
            if player.micro_batches == self._micro_batches_before[name]:
                self._rest(player)
                continue
            self._rests[name] = 0
            if player.position == 0:
                trace.lr.append(float(player.report["lr"]))
                trace.loss.append(self._loss(trainer, pl_module, self.sweep.monitor[name]))
                if end := self._end(trainer, pl_module, name):
                    trace.ended, trainer.should_stop = end, True
        made = len(self.traces[self._lead].lr)
        if self._bar is not None:
            self._bar.update(made - self._bar.n)
        if made == len(self.sweep.rates):
            trainer.should_stop = True

    def _note_adversarial(self, module: GANModule) -> None:
        """Have it noted which of the watched terms depend on the other player."""

        def note(player: str, names: set[str]) -> None:
            for swept, trace in self.traces.items():
                trace.adversarial |= self.sweep.monitor[swept] in {f"{player}/{name}" for name in names}

        losses = {self.sweep.monitor[swept].partition("/")[0] for swept in self.traces} & module.updates.keys()
        if losses:
            note_adversarial_terms(module, losses, note)

    def _rest(self, player: Player) -> None:
        """Note that a swept player has no part in this micro-batch.

        Raises:
            RestingError: it has had none for long.
        """
        self._rests[player.name] += 1
        if self._rests[player.name] >= max(_LONGEST_REST, 2 * getattr(player.settings, "every", 1)):
            raise RestingError(
                f"the {player.name} makes no updates yet ({player.name}_loss returned None), so its learning rate "
                f"cannot be tested: start from a later checkpoint, or let its training begin at once"
            )

    def _end(self, trainer: Trainer, module: GANModule, name: str) -> str | None:
        """Return why the test is over; ``None`` if it is not."""
        trace = self.traces[name]
        if not np.isfinite(trace.loss[-_NONFINITE_TO_STOP:]).any() and len(trace.loss) >= _NONFINITE_TO_STOP:
            return f"{self.sweep.monitor[name]} was not finite {_NONFINITE_TO_STOP} times in a row"
        if diverges(trace.loss, self.sweep.threshold, self.sweep.smoothing):
            return f"{self.sweep.monitor[name]} diverged"
        if name == "discriminator" and self.sweep.collapse is not None:
            names = "loss", "real_score", "fake_score"
            known = [name for name in names if name in module.updates["discriminator"].report]
            report = {name: self._term(trainer, module, f"discriminator/{name}") for name in known}
            self._first_loss = report["loss"] if self._first_loss is None else self._first_loss
            if why := self.sweep.collapse.seen(report, self._first_loss):
                trace.limit = trace.lr[-1]
                return f"the discriminator collapsed: {why}"
        return None

    def _loss(self, trainer: Trainer, module: GANModule, term: str) -> float:
        metric = self.sweep.metric
        if metric is not None:
            assert self._validation is not None
            if self._quality is None:
                found = self._validation.quality(metric) if callable(metric) else self._validation.validated(metric)
                self._quality = self._over_ranks(trainer, module, found)
            return self._quality
        if self._validation is not None:
            return self._over_ranks(trainer, module, self._validation.loss(term))
        return self._term(trainer, module, term)

    def _term(self, trainer: Trainer, module: GANModule, term: str) -> float:
        metrics = {name: value for player in module.updates.values() for name, value in player.metrics().items()}
        if term not in metrics:
            raise ValueError(f"monitor {term!r} is not logged; name one of {', '.join(sorted(metrics))}")
        return self._over_ranks(trainer, module, metrics[term])

    def _over_ranks(self, trainer: Trainer, module: GANModule, value: Any) -> float:
        """Return the mean over the ranks, so that all of them decide the same."""
        value = torch.as_tensor(value, dtype=torch.float64, device=module.device)
        return float(trainer.strategy.reduce(value, reduce_op="mean"))

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remove the progress bar, and let go of the module."""
        self._validation = None
        if self._bar is not None:
            self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Remove the progress bar."""
        self.on_fit_end(trainer, pl_module)


def _groups(player: Player) -> list[dict[str, Any]]:
    return player.groups


def _reseed(trainer: Trainer, repeat: int) -> None:
    seed = (torch.initial_seed() + repeat) % 2**32
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - data sets may use the global state
    torch.manual_seed(seed)
    for loader in training_loaders(trainer).flattened:
        sampler: Any = getattr(loader, "sampler", None)
        if isinstance(getattr(sampler, "seed", None), int):
            sampler.seed += repeat
