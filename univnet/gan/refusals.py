"""What Lightning offers to one optimizer alone is refused before data are read, with the name of ours in its place."""

from collections.abc import Iterator

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import (
    BatchSizeFinder,
    GradientAccumulationScheduler,
    LearningRateFinder,
    StochasticWeightAveraging,
    WeightAveraging,
)
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy
from lightning.pytorch.utilities import rank_zero_warn
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.model_helpers import is_overridden

from univnet.gan.lightning_internals import ddp_options, drop_searches

_ACCUMULATE = "set {0}generator_updates.accumulate and {0}discriminator_updates.accumulate"
_CLIP = "set {0}generator_updates.clip_norm or .clip_value, and those of {0}discriminator_updates"
_EMA = "use univnet.gan.ExponentialMovingAverage, a callback for each player"
# Lightning's callbacks, and what stands in their place.
_CALLBACKS = {
    GradientAccumulationScheduler: f"{_ACCUMULATE}, each a number or {{{{epoch: number}}}}",
    StochasticWeightAveraging: "use univnet.gan.StochasticWeightAveraging, a callback for each player",
    WeightAveraging: _EMA,
    LearningRateFinder: "use the verb find-lr, or univnet.gan.Tuner(trainer).lr_find(model)",
    BatchSizeFinder: "use the verb find-batch-size, or univnet.gan.Tuner(trainer).scale_batch_size(model)",
}

# Hooks of a module that Lightning calls for one optimizer alone, and what decides in their place.
_IDLE_HOOKS = {
    "optimizer_step": "the training step makes each player's updates",
    "optimizer_zero_grad": "a window's gradients are cleared when it closes",
    "on_before_zero_grad": "a window's gradients are cleared when it closes",
    "configure_gradient_clipping": "set clip_norm or clip_value of each player's Updates, or a NormLimit of your own",
}


def refuse_one_optimizer_techniques(trainer: Trainer, model: str = "") -> None:
    """Raise one error that names everything about ``trainer`` that cannot train two players, if anything.

    Args:
        trainer: the trainer that is to fit a ``GANModule``.
        model: what the names of the module's options begin with: ``"model."`` on the command line.

    Raises:
        MisconfigurationException: naming each technique and what stands in its place.
    """
    found = list(_found(trainer, model))
    drop_searches(trainer)  # Lightning's Tuner leaves its callback behind when a fit raises
    if found:
        raise MisconfigurationException(
            f"Lightning's techniques for one optimizer cannot serve two: {'; '.join(found)}"
        )


def refuse_no_interval(trainer: Trainer) -> None:
    """Raise an error if validation is to come every 0 batches or epochs, by which Lightning would divide.

    Raises:
        MisconfigurationException: naming the option, and how not to validate.
    """
    for option in ("val_check_interval", "check_val_every_n_epoch"):
        if getattr(trainer, option) == 0:
            raise MisconfigurationException(
                f"trainer.{option} must be at least 1, got 0: set trainer.limit_val_batches to 0 not to validate"
            )


def _found(trainer: Trainer, model: str) -> Iterator[str]:
    if trainer.accumulate_grad_batches != 1:
        yield f"accumulate_grad_batches: {_ACCUMULATE.format(model)}"
    if trainer.gradient_clip_val is not None:
        yield f"gradient_clip_val: {_CLIP.format(model)}"
    elif trainer.gradient_clip_algorithm is not None:
        yield f"gradient_clip_algorithm: {_CLIP.format(model)}"
    for callback in trainer.callbacks:  # type: ignore[attr-defined]
        for theirs, ours in _CALLBACKS.items():
            if isinstance(callback, theirs):
                yield f"{type(callback).__name__}: {ours.format(model)}"
                break
    if mistake := strategy_mistake(trainer.strategy):
        yield mistake


def strategy_mistake(strategy: Strategy) -> str | None:
    """Return why ``strategy`` cannot train two players, and what can; ``None`` where it can."""
    if isinstance(strategy, DDPStrategy):
        # In each player's turn the other's parameters get no gradient. Without a word on it, setup gives the flag.
        if ddp_options(strategy).get("find_unused_parameters", True):
            return None
        return (
            "Two players need find_unused_parameters=True: use strategy=ddp or strategy=ddp_find_unused_parameters_true"
        )
    if isinstance(strategy, SingleDeviceStrategy):
        return None
    return f"{type(strategy).__name__} cannot train two players: use strategy=auto or strategy=ddp"


def warn_of_idle_hooks(module: LightningModule) -> None:
    """Warn of each hook that ``module`` defines although nothing calls it."""
    for hook, instead in _IDLE_HOOKS.items():
        if is_overridden(hook, module):
            rank_zero_warn(f"{type(module).__name__}.{hook} is never called: {instead}")
