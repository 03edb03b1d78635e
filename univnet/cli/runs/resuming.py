"""What the command line says on resuming is what happens, or is refused.

A checkpoint also carries some of what the options say: rates and other numbers in the optimizers' states, schedules,
random numbers. The options that it was trained with lie in it as ``checkpoint["options"]``, plain types by dotted
names. One given by hand that differs wins where training can go on so; else it is refused, as are those of a
configuration file that cannot be carried on. Where the file's numbers differ alone, the checkpoint's stay, with a word.
"""

import inspect
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_info

from univnet.cli.messages import UsageError
from univnet.cli.runs.given import is_given
from univnet.cli.runs.rates import FOLLOWING, change_rate
from univnet.common.mistakes import Mistakes
from univnet.gan.resume import check_complete

PLAYERS = ("generator", "discriminator")
CARRIED = ("seed_everything", "trainer.precision", "data.epoch")
# An optimizer's arguments that may change while its state stays good. The rate has an option of its own.
CHANGEABLE = ("betas", "eps", "weight_decay", "momentum", "dampening", "nesterov", "alpha", "maximize")
UNHEEDED = ("lr", "fused", "foreach", "capturable", "differentiable")  # overruled, or another way to the same numbers
# Between these nothing is lost. 16-mixed has loss scales, and the true ones have other weights.
ALIKE = ({"32", "32-true", "bf16-mixed", "bf16"}, {"64", "64-true"}, {"16", "16-mixed"})
_ADAMW = {name: each.default for name, each in inspect.signature(torch.optim.AdamW).parameters.items()}
_ADAMW |= {"betas": [0.5, 0.9], "params": None}
_DEFAULTS = {"optimizer": {"class_path": "torch.optim.AdamW", "init_args": _ADAMW}}  # UnivNet's own
AFRESH = "begin a new run from its weights with --init_from"


class Resuming(Callback):
    """Keep the options in checkpoints; after a resume, let those that changed take effect.

    ``max_time`` counts afresh in every job.

    Args:
        options: those of ``CARRIED`` and of both players, as ``carried`` returns them.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.options = dict(options)
        self.rates: dict[str, tuple[float, float]] = {}
        self.arguments: dict[str, dict[str, Any]] = {}

    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Add the options."""
        checkpoint["options"] = self.options

    def on_load_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        """Leave out the time that earlier jobs took."""
        checkpoint.get("callbacks", {}).pop("Timer", None)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Change what the optimizers' states, loaded by now, hold otherwise."""
        for name, optimizer in zip(PLAYERS, trainer.optimizers, strict=True):
            configs = [each for each in trainer.lr_scheduler_configs if each.scheduler.optimizer is optimizer]
            if name in self.rates:
                old, new = self.rates[name]
                change_rate(optimizer, [each.scheduler for each in configs], old, new)
                rank_zero_info(f"univnet: {name}_lr is {new:g} from here on, {old:g} before")
            for key, value in self.arguments.get(name, {}).items():
                for group in optimizer.param_groups:
                    group[key] = tuple(value) if isinstance(value, list) else value
                rank_zero_info(f"univnet: {key} of the {name}'s optimizer is {value} from here on")


def carried(parser: Any, config: Any) -> dict[str, Any]:
    """Return the options of ``config`` that a checkpoint carries too, plain types by dotted names."""
    plain = yaml.safe_load(parser.dump(config, skip_validation=True))
    model = plain["model"]
    precision = plain["trainer"].get("precision") or "32-true"
    options = {"seed_everything": plain.get("seed_everything"), "trainer.precision": str(precision)}
    options["data.epoch"] = plain["data"]["epoch"]
    for player in PLAYERS:
        for part in ("lr", "optimizer", "schedule"):
            options[f"model.{player}_{part}"] = model.get(f"{player}_{part}") or _DEFAULTS.get(part)
    return options


def resumed_options(
    checkpoint: Mapping[str, Any], options: Mapping[str, Any], given: set[str]
) -> tuple[dict[str, Any], Resuming]:
    """Compare a checkpoint with the options of the run that is to go on from it.

    Args:
        checkpoint: what the file holds. One without options, of an earlier version, is only asked for the rates.
        options: of the run, as ``carried`` returns them.
        given: the names of those that were given by hand.

    Returns:
        Options that are as in the checkpoint although a configuration file says otherwise; the callback for the run.

    Raises:
        UsageError: naming every option that cannot be carried on.
    """
    try:
        check_complete(checkpoint, dict.fromkeys(PLAYERS))  # type: ignore[arg-type]
    except ValueError as error:
        raise UsageError(f"{error} (--init_from)") from error
    before = _before(checkpoint)
    mistakes = Mistakes("resuming")
    numbers = ("seed_everything", "data.epoch", *(f"model.{player}_lr" for player in PLAYERS))
    differ = [name for name in numbers if name in before and before[name] != options[name]]
    stay = {name: before[name] for name in differ if not is_given(name, given)}
    for name in stay.keys() - {"seed_everything", "data.epoch"}:  # what they began with goes on
        warnings.warn(
            f"{name} stays {before[name]}, as in the checkpoint; the configuration says {options[name]}: "
            "give it on the command line to change it",
            stacklevel=2,
        )
    now = {**options, **stay}
    if before.get("seed_everything", now["seed_everything"]) != now["seed_everything"]:
        mistakes.unless(
            False, f"seed_everything: the random numbers go on from the checkpoint; leave it out, or {AFRESH}"
        )
    if before.get("data.epoch", now["data.epoch"]) != now["data.epoch"]:
        mistakes.unless(
            False,
            f"data.epoch: the place in an epoch goes on from the checkpoint, whose epochs cover "
            f"{before['data.epoch']}; leave it out, or {AFRESH}",
        )
    _compare_precision(before, now, mistakes)
    callback = Resuming(now)
    for player in PLAYERS:
        _compare_player(player, before, now, checkpoint, callback, mistakes)
    mistakes.raise_all(UsageError)
    return stay, callback


def _before(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    if "options" in checkpoint:
        return dict(checkpoint["options"])
    rates = checkpoint.get("hyper_parameters", {})
    # Before checkpoints held options, each file was drawn once per epoch.
    return {"data.epoch": "files"} | {
        f"model.{player}_lr": rates[f"{player}_lr"] for player in PLAYERS if f"{player}_lr" in rates
    }


def _compare_precision(before: Mapping[str, Any], now: Mapping[str, Any], mistakes: Mistakes) -> None:
    name = "trainer.precision"
    old, new = str(before.get(name, now[name])), str(now[name])
    alike = old == new or any({old, new} <= kinds for kinds in ALIKE)
    mistakes.unless(
        alike, f"{name}: {new} cannot go on from {old}, whose weights or loss scales differ; keep it, or {AFRESH}"
    )


def _compare_player(
    player: str,
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    checkpoint: Mapping[str, Any],
    callback: Resuming,
    mistakes: Mistakes,
) -> None:
    rate, optimizer, schedule = (f"model.{player}_{part}" for part in ("lr", "optimizer", "schedule"))
    if schedule in before:
        differ = [*_differences(before[schedule], now[schedule], schedule)]
        # How often it is stepped, and by what, is no part of its state.
        differ = [one for one in differ if one.rpartition(".")[2] not in ("interval", "frequency", "monitor")]
        mistakes.unless(
            not differ, f"{', '.join(differ)}: the schedule goes on from the checkpoint; keep it, or {AFRESH}"
        )
    if optimizer in before:
        for name in _differences(before[optimizer], now[optimizer], optimizer):
            key = name.rpartition(".")[2]
            if key in CHANGEABLE:
                callback.arguments.setdefault(player, {})[key] = now[optimizer]["init_args"][key]
            elif key not in UNHEEDED:
                mistakes.unless(
                    False, f"{name}: another optimizer cannot go on from this one's state; keep it, or {AFRESH}"
                )
    if rate in before and before[rate] != now[rate]:
        kind = ((now[schedule] or {}).get("scheduler") or {}).get("class_path", "").rpartition(".")[2]
        if kind and kind not in FOLLOWING:
            mistakes.unless(
                False, f"{rate}: {kind} sets the rates itself, whatever this says; leave it out, or {AFRESH}"
            )
        elif _swa_drives(player, checkpoint):
            mistakes.unless(False, f"{rate}: weight averaging (SWA) drives this rate by now; set its swa_lrs")
        else:
            callback.rates[player] = before[rate], now[rate]


def _differences(before: Any, now: Any, name: str) -> Iterator[str]:
    """Yield the names of what differs in both; what one of them lacks, an earlier version did not have."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        if before.get("class_path") != now.get("class_path"):
            yield name
            return
        for key in before.keys() & now.keys():
            inner = name if key in ("init_args", "class_path") else f"{name}.{key}"
            yield from _differences(before[key], now[key], inner)
    elif before != now:
        yield name


def _swa_drives(player: str, checkpoint: Mapping[str, Any]) -> bool:
    states = checkpoint.get("callbacks", {}).items()
    kind = "StochasticWeightAveraging"
    return any(key.startswith(kind) and repr(player) in key and state.get("_begun") for key, state in states)
