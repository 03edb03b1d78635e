"""How one player's gradients become updates: what a user sets."""

from collections.abc import Mapping
from dataclasses import dataclass

from univnet.common.mistakes import Mistakes
from univnet.gan.norm_limit import NormLimit


@dataclass(frozen=True)
class Updates:
    """How one player's gradients become updates.

    Args:
        accumulate: K, micro-batches whose mean gradient makes an update. A number, or a schedule
            ``{epoch: K}`` (epochs from 0; K is 1 until the first epoch named), as in Lightning's
            ``GradientAccumulationScheduler``.
        clip_norm: largest Euclidean norm of the gradient; a longer one is scaled down to it. A number, or a rule that
            decides it for each update (``univnet.gan.NormLimit``); ``None``: no clipping.
        clip_value: clamp every element of the gradient to ±this, before ``clip_norm``; ``None``: no clipping.
        max_nonfinite: stop training after this many updates in a row were skipped because of a NaN or infinity.
            The default exceeds the 16 halvings by which fp16's first loss scale, 2**16, can fall to 1.
        every: play on the micro-batches ``every``, 2 · ``every``, … of the run only (``n_critic`` of the other player).
            On the rest the player has no forward pass and no loss; K counts the micro-batches on which it plays.
        repeat: make this many updates on each micro-batch, each with fakes of its own. It needs an order of play and
            ``accumulate`` 1.
        regularize_every: after the updates 1, 1 + n, 1 + 2n, … take a step of its own on the player's regularizer
            (lazy regularization, arXiv 1912.04958, appendix B); 0: never. The step does not count as an update.

    Raises:
        ValueError: if arguments are out of range; it names all of them.
    """

    accumulate: int | dict[int, int] = 1
    clip_norm: float | NormLimit | None = None
    clip_value: float | None = None
    max_nonfinite: int = 20
    every: int = 1
    repeat: int = 1
    regularize_every: int = 0

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
        for name, least in {"max_nonfinite": 1, "every": 1, "repeat": 1, "regularize_every": 0}.items():
            value = getattr(self, name)
            mistakes.unless(_is_count(value, least), f"{name} must be a whole number ≥ {least}, got {value!r}")
        mistakes.unless(
            self.repeat == 1 or self.accumulate == 1,
            f"repeat makes several updates of one micro-batch, so accumulate must be 1, got {self.accumulate!r}",
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

    def of_regularizer(self) -> "Updates":
        """Return the settings of the player's steps on its regularizer: its clipping and its guard."""
        return Updates(clip_norm=self.clip_norm, clip_value=self.clip_value, max_nonfinite=self.max_nonfinite)


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
