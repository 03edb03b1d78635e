"""One player's updates: accumulate → unscale → guard → clip → step → schedule → zero.

A *micro-batch* is what the loader yields; a player's *window* is the micro-batches whose gradients make one *update*.
A window closes after K micro-batches or at the epoch's last one.
"""

import copy
import logging
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.amp import GradScaler
from torch.autograd.graph import increment_version
from torch.nn import Parameter
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from univnet.common.mistakes import Mistakes
from univnet.gan.norm_limit import NormLimit

log = logging.getLogger(__name__)


_EXPLODED = 1e3  # a warning is logged when the norm of the weights has grown by this factor


class NonFiniteError(RuntimeError):
    """Training cannot go on: too many updates in a row were skipped, or an update has made weights NaN or infinite.

    Attributes:
        player: the name of the player that it happened to.
    """

    def __init__(self, message: str, player: str = "") -> None:
        super().__init__(message)
        self.player = player


@dataclass(frozen=True)
class Updates:
    """How one player's gradients become updates.

    Args:
        accumulate: K, the micro-batches whose mean gradient makes one update. A number, or a schedule
            ``{epoch: K}`` (epochs from 0; K is 1 until the first epoch named), as in Lightning's
            ``GradientAccumulationScheduler``.
        clip_norm: scale the gradient down to at most this Euclidean norm, a number or a rule that decides it for each
            update (``univnet.gan.NormLimit``); ``None``: no clipping.
        clip_value: clamp every element of the gradient to ±this, before ``clip_norm``; ``None``: no clipping.
        max_nonfinite: stop training after this many updates in a row were skipped because of a NaN or infinity.
            The default exceeds the 16 halvings by which fp16's first loss scale, 2**16, can fall to 1.

    Raises:
        ValueError: if arguments are out of range; it names all of them.
    """

    accumulate: int | dict[int, int] = 1
    clip_norm: float | NormLimit | None = None
    clip_value: float | None = None
    max_nonfinite: int = 20

    def __post_init__(self) -> None:
        schedule = self.accumulate if isinstance(self.accumulate, Mapping) else {0: self.accumulate}
        mistakes = Mistakes(self)
        mistakes.unless(
            all(_is_count(epoch, 0) and _is_count(k, 1) for epoch, k in schedule.items()),
            f"accumulate must be a whole number ≥ 1, or {{epoch ≥ 0: number ≥ 1}}, got {self.accumulate!r}",
        )
        for name in ("clip_norm", "clip_value"):
            value = getattr(self, name)
            mistakes.unless(
                value is None or isinstance(value, NormLimit) or value > 0,
                f"{name} must be positive, or null for no clipping, got {value!r}",
            )
        mistakes.unless(
            _is_count(self.max_nonfinite, 1), f"max_nonfinite must be a whole number ≥ 1, got {self.max_nonfinite!r}"
        )
        mistakes.raise_all()
        if isinstance(self.accumulate, Mapping):  # a copy, which the caller cannot change later
            object.__setattr__(self, "accumulate", dict(self.accumulate))

    def accumulate_at(self, epoch: int) -> int:
        """Return K, the micro-batches of a full window, in ``epoch`` (from 0)."""
        if isinstance(self.accumulate, int):
            return self.accumulate
        begun = [start for start in self.accumulate if start <= epoch]
        return self.accumulate[max(begun)] if begun else 1


class Player:
    """One optimizer of a GAN: its open window, its counters, and its last report.

    Attributes:
        steps: updates made.
        micro_batches: micro-batches seen.
        nonfinite: updates skipped because a loss or gradient was NaN or infinite.
        position: micro-batches in the open window; 0 when none is open.
        report: the last closed window's mean loss terms, ``lr``, ``gradient_norm`` (before clipping), ``clipped`` (the
            share of updates since the last logging that clipping changed), and the counters, for logging.
    """

    def __init__(self, name: str, settings: Updates | None = None) -> None:
        self.name = name
        self.settings = settings or Updates()
        self._norm_limit: NormLimit | None = None
        self.optimizer: Optimizer | None = None
        self.scaler: GradScaler | None = None
        self.reset()

    def reset(self) -> None:
        """Forget all counts and any open window, with its gradient."""
        if self.optimizer is not None:
            self.optimizer.zero_grad(set_to_none=True)
        self.steps = self.micro_batches = self.nonfinite = self.position = 0
        self._nonfinite_in_a_row = self._updates_since_log = 0
        self._clipped_updates: Tensor | int = 0
        self._epoch, self._size = 0, 1
        self._sums: dict[str, Tensor] = {}
        self.report: dict[str, Tensor | float] = {}
        rule = self.settings.clip_norm
        self._norm_limit = copy.deepcopy(rule) if isinstance(rule, NormLimit) else None

    def bind(self, optimizer: Optimizer, scaler: GradScaler | None) -> None:
        """Use ``optimizer`` and, in fp16, a copy of the loss ``scaler``.

        Each player has its own scaler: an overflow of one player does not change the other's scale, and a scale
        changes only when its own player's window closes.

        Raises:
            ValueError: a learning rate of the optimizer is negative, infinite or NaN.
        """
        self.optimizer = optimizer
        rates = [float(group["lr"]) for group in optimizer.param_groups if "lr" in group]
        if wrong := [rate for rate in rates if not 0 <= rate < math.inf]:
            raise ValueError(
                f"{self.name}: the learning rate of its optimizer must be a finite number, not negative; got {wrong[0]}"
            )
        self.scaler = copy.deepcopy(scaler)
        self._norm_at_start = float(get_total_norm(self.parameters))

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters that this player's optimizer updates."""
        assert self.optimizer is not None
        return [p for group in self.optimizer.param_groups for p in group["params"]]

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
        for name, value in terms.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value.clone()
        self.position += 1
        self.micro_batches += 1

    def update(self, step: Callable[[], Any]) -> bool:
        """Close the window: unscale, guard, clip, and call ``step``, which moves the weights. Return whether it did.

        Raises:
            NonFiniteError: after ``max_nonfinite`` skipped updates in a row.
        """
        assert self.optimizer is not None
        lr = self._lr
        with_grad = [p for p in self.parameters if p.grad is not None]
        grads = [p.grad for p in with_grad if p.grad is not None]
        if self.scaler and grads:
            self.scaler.unscale_(self.optimizer)
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
        self.report = {name: total / self.position for name, total in self._sums.items()}
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
        assert self.optimizer is not None
        return float(self.optimizer.param_groups[0]["lr"])

    def metrics(self) -> dict[str, Tensor | float]:
        """Return the report with the player's name in front: ``generator/loss``, …"""
        return {f"{self.name}/{key}": value for key, value in self.report.items()}

    def logged(self) -> None:
        """Begin a new interval of the ``clipped`` share, because the last value was logged."""
        self._clipped_updates = self._updates_since_log = 0

    def state_dict(self) -> dict[str, Any]:
        """Return all that resuming inside an open window needs, with gradients; safe for ``weights_only`` loading."""
        return {
            **{key: getattr(self, key) for key in _STATE},
            "grads": [p.grad for p in self.parameters] if self.position else [],
            "scaler": self.scaler.state_dict() if self.scaler else None,
            "norm_limit": self._norm_limit.state_dict() if self._norm_limit else None,
            "optimizer": type(self.optimizer).__name__,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what ``state_dict`` returned; call ``bind`` first."""
        for key in _STATE:
            setattr(self, key, copy.copy(state[key]))
        parameters = self.parameters
        device = parameters[0].device
        self._sums = {name: total.to(device) for name, total in self._sums.items()}
        for parameter, grad in zip(parameters, state["grads"] or [None] * len(parameters), strict=True):
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
        assert self.optimizer is not None
        self.optimizer.zero_grad(set_to_none=True)
        self._sums, self.position = {}, 0


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
    "_sums",
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


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


def _isfinite(value: Tensor | float) -> bool:
    return bool(torch.isfinite(torch.as_tensor(value)).all())
