"""One player's updates: accumulate → unscale → guard → clip → step → schedule → zero.

A *micro-batch* is what the loader yields; a player's *window* is the micro-batches whose gradients make one *update*.
A window closes after K micro-batches or at the epoch's last one.
"""

import copy
import inspect
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torch.amp import GradScaler
from torch.autograd.graph import increment_version
from torch.nn import Parameter
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from univnet.gan.norm_limit import NormLimit
from univnet.gan.play.settings import Updates
from univnet.gan.play.sums import Sums

log = logging.getLogger(__name__)

__all__ = ["NonFiniteError", "Player", "Updates", "frozen", "mean_over_ranks", "requiring_grad"]

_OPTIONAL = inspect.Parameter("closure", inspect.Parameter.KEYWORD_ONLY, default=None)
_EXPLODED = 1e3  # a warning is logged when the norm of the weights has grown by this factor


class NonFiniteError(RuntimeError):
    """Training cannot go on: too many updates in a row were skipped, or an update has made weights NaN or infinite.

    Attributes:
        player: the name of the player that it happened to.
    """

    def __init__(self, message: str, player: str = "") -> None:
        super().__init__(message)
        self.player = player


class Player:
    """One player of a GAN: its optimizers, its open window, its counters, and its last report.

    Attributes:
        optimizers: what updates its weights, mostly one.
        steps: updates made.
        micro_batches: micro-batches played.
        nonfinite: updates skipped because a loss or gradient was NaN or infinite.
        position: micro-batches in the open window; 0 when none is open.
        resting: its loss was ``None`` when it last had a turn.
        report: the last closed window's mean loss terms, each over the micro-batches in which it appeared, ``lr``,
            ``gradient_norm`` (before clipping), ``clipped`` (the share of updates since the last logging that clipping
            changed), and the counters.
    """

    def __init__(self, name: str, settings: Updates | None = None) -> None:
        self.name = name
        self.settings = settings or Updates()
        self._norm_limit: NormLimit | None = None
        self.optimizers: tuple[Optimizer, ...] = ()
        self.scaler: GradScaler | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all counts and any open window, with its gradient."""
        self._zero_grad()
        self.steps = self.micro_batches = self.nonfinite = self.position = self._seen = 0
        self.resting = False
        self._nonfinite_in_a_row = self._updates_since_log = 0
        self._clipped_updates: Tensor | int = 0
        self._epoch, self._size = 0, 1
        self._sums, self._row = Sums(), Sums()  # of the open window, and since the last row that was logged
        self.report: dict[str, Tensor | float] = {}
        rule = self.settings.clip_norm
        self._norm_limit = copy.deepcopy(rule) if isinstance(rule, NormLimit) else None

    def bind(self, optimizers: Optimizer | Sequence[Optimizer], scaler: GradScaler | None) -> None:
        """Use ``optimizers`` and, in fp16, a copy of the loss ``scaler``.

        Each player has its own scaler: an overflow of one player does not change the other's scale, and a scale
        changes only when its own player's window closes.

        Raises:
            ValueError: a learning rate of the optimizers is negative, infinite or NaN, or one of them, such as
                ``LBFGS``, wants to compute the loss itself.
        """
        self.optimizers = (optimizers,) if isinstance(optimizers, Optimizer) else tuple(optimizers)
        rates = [float(group["lr"]) for group in self.groups if "lr" in group]
        if wrong := [rate for rate in rates if not 0 <= rate < math.inf]:
            raise ValueError(
                f"{self.name}: the learning rate of its optimizer must be a finite number, not negative; got {wrong[0]}"
            )
        for each in self.optimizers:
            if inspect.signature(each.step).parameters.get("closure", _OPTIONAL).default is inspect.Parameter.empty:
                raise ValueError(
                    f"{self.name}: {type(each).__name__} computes the loss again within a step, and an update here has "
                    "the gradient of a window of micro-batches alone: use an optimizer whose step needs no closure"
                )
        self.scaler = copy.deepcopy(scaler)
        self._norm_at_start = float(get_total_norm(self.parameters))

    @property
    def optimizer(self) -> Optimizer | None:
        """The first of its optimizers, if there are any yet."""
        return self.optimizers[0] if self.optimizers else None

    @property
    def groups(self) -> list[dict[str, Any]]:
        """The parameter groups of this player's optimizers."""
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters that this player's optimizers update."""
        return [p for group in self.groups for p in group["params"]]

    def plays(self) -> bool:
        """Count the micro-batch that begins, and return whether this player plays on it."""
        self._seen += 1
        return self._seen % self.settings.every == 0

    @property
    def regularizes(self) -> bool:
        """Whether a step of its own on the regularizer follows the update that was just made."""
        every = self.settings.regularize_every
        return every > 0 and (self.steps - 1) % every == 0

    def open(self, epoch: int) -> None:
        """Begin a micro-batch of ``epoch``, and open a window if none is open."""
        if self.position and epoch != self._epoch:  # an epoch that was cut short must not leak into the next
            log.warning("%s: dropped %d micro-batches of an epoch cut short", self.name, self.position)
            self._close()
        if not self.position:
            self._epoch, self._size = epoch, self.settings.accumulate_at(epoch)

    def closes(self, last_of_epoch: bool) -> bool:
        """Whether the present micro-batch closes the window."""
        return last_of_epoch or self.position + 1 >= self._size

    def accumulate(self, terms: Mapping[str, Tensor], backward: Callable[[Tensor], None]) -> None:
        """Add one micro-batch: its loss terms to the window's sums, its gradient (by ``backward``) to ``.grad``."""
        loss = terms["loss"]
        # A loss that is not finite must stop the update even if its gradient is finite. A gradient of NaN does that
        # without host synchronization, and DDP's all-reduce passes it to every rank.
        finite = torch.where(torch.isfinite(loss.detach()), 1.0, torch.nan)
        backward(loss / self._size * finite)
        self._sums.add(terms)
        self.position += 1
        self.micro_batches += 1

    def update(self, step: Callable[[], Any]) -> bool:
        """Close the window: unscale, guard, clip, and call ``step``, which moves the weights. Return whether it did.

        Raises:
            NonFiniteError: after ``max_nonfinite`` skipped updates in a row.
        """
        lr = self._lr
        with_grad = [p for p in self.parameters if p.grad is not None]
        grads = [p.grad for p in with_grad if p.grad is not None]
        if self.scaler and grads:
            for optimizer in self.optimizers:
                self.scaler.unscale_(optimizer)
        if self.position < self._size and grads:  # a short last window is the mean over its own micro-batches
            torch._foreach_mul_(grads, self._size / self.position)
        norm = get_total_norm(grads)
        finite = bool(torch.isfinite(norm))
        if finite:
            self._clip(with_grad, grads, norm)
            step()
            increment_version(with_grad)  # torch's fused optimizers do not
            self.steps += 1
            self._nonfinite_in_a_row = 0
        if self.scaler and grads:
            self.scaler.update()
        self.report = {**self._sums.means()}
        self._row.add(self._sums.totals, self._sums.counts)
        self.report |= {"lr": lr, "gradient_norm": norm, "updates": self.steps, "nonfinite": self.nonfinite}
        if self._updates_since_log:
            self.report["clipped"] = self._clipped_updates / self._updates_since_log
        if self.scaler:
            # A tensor, because get_scale() would wait for the device.
            self.report["loss_scale"] = self.scaler.scale(torch.ones_like(norm))
        self._close()
        if not finite:
            self._skip()
        return finite

    @torch.no_grad()
    def check_weights(self) -> None:
        """Check the weights, since ``update`` checks gradients only. Waits for the device.

        Logs one warning if their norm has grown a thousandfold since training started or was resumed.

        Raises:
            NonFiniteError: if the norm of the weights is NaN or infinite.
        """
        norm = float(get_total_norm(self.parameters))
        if not math.isfinite(norm):
            raise NonFiniteError(
                f"{self.name}: its weights are NaN, infinite or too large to measure after update {self.steps}, so "
                f"training stops here; checkpoints written before are good. Lower its learning rate (now "
                f"{self._lr:.3g}) or set clip_norm, and go on from the last one",
                self.name,
            )
        if norm > _EXPLODED * self._norm_at_start > 0:
            log.warning(
                "%s: its weights have grown %.0f-fold by update %d: its learning rate (now %.3g) is too high",
                *(self.name, norm / self._norm_at_start, self.steps, self._lr),
            )
            self._norm_at_start = 0.0  # warn once

    @property
    def _lr(self) -> float:
        return float(self.groups[0]["lr"])

    def metrics(self) -> dict[str, Tensor | float]:
        """Return the report with the player's name in front: ``generator/loss``, …"""
        return {f"{self.name}/{key}": value for key, value in self.report.items()}

    def row(self) -> dict[str, float]:
        """Return ``metrics`` with the terms' means since the last row instead, and begin a new row.

        A mean is over the micro-batches of closed windows in which the term appeared. Waits for the device.
        """
        own = {name: value for name, value in self.report.items() if name in _OWN}
        row = {f"{self.name}/{name}": float(value) for name, value in (self._row.means() | own).items()}
        self._row = Sums()
        self._clipped_updates = self._updates_since_log = 0
        return row

    def state_dict(self) -> dict[str, Any]:
        """Return all that resuming inside an open window needs, with gradients; safe for ``weights_only`` loading."""
        kinds = [type(optimizer).__name__ for optimizer in self.optimizers]
        return {
            **{key: getattr(self, key) for key in _STATE},
            **{key: getattr(self, key).state_dict() for key in ("_sums", "_row")},
            "grads": [p.grad for p in self.parameters] if self.position else [],
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "norm_limit": self._norm_limit.state_dict() if self._norm_limit else None,
            "optimizer": ", ".join(kinds),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; call ``bind`` first."""
        for key in _STATE:
            if key in state:  # older checkpoints lack some
                setattr(self, key, copy.copy(state[key]))
        parameters = self.parameters
        device = parameters[0].device
        self._sums.load_state_dict(state["_sums"], self.position, device)
        self._row.load_state_dict(state.get("_row", {}), 0, device)
        # Without a window of its own it leaves the gradients alone: its regularizer has the same parameters.
        for parameter, grad in zip(parameters, state["grads"], strict=True) if state["grads"] else ():
            parameter.grad = None if grad is None else grad.to(parameter.device, copy=True)
        if self.scaler and state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        if self._norm_limit and state.get("norm_limit"):
            self._norm_limit.load_state_dict(state["norm_limit"])

    def _clip(self, parameters: list[Parameter], grads: list[Tensor], norm: Tensor) -> None:
        by_norm, by_value = self._norm_limit or self.settings.clip_norm, self.settings.clip_value
        if by_norm is None and by_value is None:
            return
        clipped = torch.zeros((), dtype=torch.bool, device=norm.device)
        if by_value is not None:
            clipped = clipped | (get_total_norm(grads, float("inf")) > by_value)
            clip_grad_value_(parameters, by_value)
            norm = get_total_norm(grads)
        if by_norm is not None:
            most = by_norm.limit(norm) if isinstance(by_norm, NormLimit) else by_norm
            clipped = clipped | (norm > most)
            clip_grads_with_norm_(parameters, most, norm)  # type: ignore[arg-type] # a scalar tensor will do
        self._clipped_updates = self._clipped_updates + clipped.int()
        self._updates_since_log += 1

    def _skip(self) -> None:
        self.nonfinite += 1
        self._nonfinite_in_a_row += 1
        self.report["nonfinite"] = self.nonfinite
        terms = [name for name in self.report if name not in _OWN and not _isfinite(self.report[name])]
        culprit = f"loss term {', '.join(map(repr, terms))}" if terms else "gradient"
        log.warning("%s: skipped an update after step %d: non-finite %s", self.name, self.steps, culprit)
        if self._nonfinite_in_a_row >= self.settings.max_nonfinite:
            raise NonFiniteError(
                f"{self.name}: {self._nonfinite_in_a_row} updates in a row had a non-finite {culprit}; "
                f"the weights are still finite. Lower its learning rate, set clip_norm, or look at the data "
                f"(max_nonfinite={self.settings.max_nonfinite} sets when to stop).",
                self.name,
            )

    def _close(self) -> None:
        self._zero_grad()
        self._sums, self.position = Sums(), 0

    def _zero_grad(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)


_STATE = (
    "steps",
    "micro_batches",
    "nonfinite",
    "position",
    "report",
    "_nonfinite_in_a_row",
    "_clipped_updates",
    "_updates_since_log",
    "_epoch",
    "_size",
    "_seen",
    "resting",
)
_OWN = ("lr", "gradient_norm", "updates", "nonfinite", "clipped", "loss_scale")


@contextmanager
def requiring_grad(parameters: list[Parameter], wanted: bool) -> Iterator[None]:
    """Set whether ``parameters`` require gradients inside this context; afterwards all are as before."""
    changed = [p for p in parameters if p.requires_grad != wanted]
    _let_compiled_networks_notice()
    try:
        for parameter in changed:
            parameter.requires_grad_(wanted)
        yield
    finally:
        for parameter in changed:
            parameter.requires_grad_(not wanted)


def frozen(parameters: list[Parameter]) -> AbstractContextManager[None]:
    """Let ``parameters`` require no gradients inside this context."""
    return requiring_grad(parameters, False)


def _let_compiled_networks_notice() -> None:
    """Have graphs that torch compiles from here on check whether weights require gradients.

    By default they take a module's weights for unchanged, and a discriminator that was compiled in the generator's
    turn gets no gradient in its own (pytorch/pytorch#139476).
    """
    dynamo: Any = sys.modules.get("torch._dynamo.config")  # slow to import, and only there where something is compiled
    if getattr(dynamo, "skip_tensor_guards_with_matching_dict_tags", False):
        dynamo.skip_tensor_guards_with_matching_dict_tags = False


def _isfinite(value: Tensor | float) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())


def mean_over_ranks(trainer: Trainer, players: Iterable[Player]) -> None:
    """Average the gradients of windows that close without a backward pass, in which DDP would do it."""
    for parameter in [p for player in players for p in player.parameters if p.grad is not None]:
        parameter.grad = trainer.strategy.reduce(parameter.grad, reduce_op="mean")
