"""The reference's own checkpoints (maum-ai/univnet), both players: read to go on training here, written to go on there.

Their layout: ``model_g`` and ``model_d`` (weight normalization as ``weight_g`` and ``weight_v``), ``optim_g``,
``optim_d``, ``step``, ``epoch``, ``hp_str`` (the YAML configuration) and ``githash``.
"""

import ast
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
import yaml
from torch import Tensor, nn

from univnet.audio import LogMelSpectrogram
from univnet.common.files import written_whole
from univnet.convert import load_plain_state_dict
from univnet.models import (
    Discriminator,
    Generator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.weights.reading import build_generator, build_mel, check_tensors, fill, read_pickle

# What to replace in our names of weights, one after the other, to have theirs.
_WEIGHT_NORM = (
    (r"parametrizations\.weight\.original0$", "weight_g"),
    (r"parametrizations\.weight\.original1$", "weight_v"),
)
_GENERATOR = (
    *_WEIGHT_NORM,
    (r"^conv_post\.", "conv_post.1."),
    (r"\.convt_pre\.", ".convt_pre.1."),
    (r"\.input_conv\.", ".input_conv.0."),
    (r"\.kernel_predictor\.resblocks\.(\d+)\.conv1\.", r".kernel_predictor.residual_convs.\1.1."),
    (r"\.kernel_predictor\.resblocks\.(\d+)\.conv2\.", r".kernel_predictor.residual_convs.\1.3."),
    (r"^(resblocks\.\d+)\.resblocks\.(\d+)\.conv\.", r"\1.conv_blocks.\2.1."),
    (r"^resblocks\.", "res_stack."),
)
# Our mel's argument: the key under "audio".
_MEL = {
    "sample_rate": "sampling_rate",
    "n_fft": "filter_length",
    "hop_length": "hop_length",
    "win_length": "win_length",
    "n_mels": "n_mel_channels",
    "f_min": "mel_fmin",
    "f_max": "mel_fmax",
}
# Ours of the generator: the key under "gen"; and what is fixed in their code.
_GEN = {
    "noise_channels": "noise_dim",
    "channels": "channel_size",
    "dilations": "dilations",
    "strides": "strides",
    "leaky_slope": "lReLU_slope",
    "predictor_kernel_size": "kpnet_conv_size",
}
_GEN_FIXED = {"kernel_size": 3, "predictor_channels": 64, "predictor_blocks": 3, "predictor_dropout": 0.0}


@dataclass(frozen=True)
class ReferenceModel:
    """What a checkpoint of the reference holds, as ours; ``discriminator`` is ``None`` where it was left out."""

    generator: Generator
    discriminator: Discriminator | None
    mel: LogMelSpectrogram
    step: int = 0
    epoch: int = 0


def read_mindslab(path: str | PathLike[str]) -> ReferenceModel:
    """Read a checkpoint of the reference; only tensors and plain values are read from it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, no checkpoint of the reference, or of a model that cannot be expressed here.
    """
    return from_mindslab(read_pickle(path), str(path))


def from_mindslab(checkpoint: Any, where: str = "the checkpoint") -> ReferenceModel:
    """Return the models in a loaded checkpoint of the reference.

    Args:
        checkpoint: what their training saved; ``model_d`` may be missing.
        where: the file, for messages.

    Raises:
        ValueError: it is no such checkpoint, or of a model that cannot be expressed here.
    """
    if not isinstance(checkpoint, Mapping) or not {"model_g", "hp_str"} <= checkpoint.keys():
        raise ValueError(f"{where} is no checkpoint of the reference: it has no model_g with hp_str")
    hp = _hyperparameters(checkpoint["hp_str"], where)
    try:
        generator_config = {ours: hp["gen"][theirs] for ours, theirs in _GEN.items()}
        generator_config |= {**_GEN_FIXED, "n_mels": hp["audio"]["n_mel_channels"]}
        mel_config = {ours: hp["audio"][theirs] for ours, theirs in _MEL.items()}
    except (KeyError, TypeError) as error:
        raise ValueError(f"{where}: its hp_str lacks {error}") from error
    part = f"model_g of {where}"
    state = _without_ddp(check_tensors(checkpoint["model_g"], part))
    generator: Any = build_generator(generator_config, state, part, theirs=lambda name: _renamed(name, _GENERATOR))
    mel = build_mel(mel_config, generator, f"hp_str of {where}")
    discriminator = None
    if checkpoint.get("model_d"):
        discriminator = _read_discriminator(checkpoint["model_d"], hp, where)
    step, epoch = (int(checkpoint.get(name) or 0) for name in ("step", "epoch"))
    return ReferenceModel(generator, discriminator, mel, step, epoch)


def to_mindslab(
    generator: Generator, discriminator: Discriminator, mel: LogMelSpectrogram, step: int = 0, epoch: int = 0
) -> dict[str, Any]:
    """Return a checkpoint that the reference's training resumes and its inference loads.

    Its optimizers start without momentum, at the reference's learning rate.

    Args:
        generator: with or without weight normalization.
        discriminator: the same.
        mel: the mel-spectrogram.
        step: updates so far.
        epoch: the last epoch that was finished.

    Raises:
        ValueError: names everything that the reference's code cannot express.
    """
    _check_expressible(generator, discriminator, mel)
    resolutions, periods = _views(discriminator)
    audio = {theirs: mel.config[ours] for ours, theirs in _MEL.items()}
    slope = {"lReLU_slope": 0.2, "use_spectral_norm": False}
    adam = {"lr": 1e-4, "beta1": 0.5, "beta2": 0.9}
    hp = {
        "data": {"train_dir": "", "train_meta": "", "val_dir": "", "val_meta": ""},
        "train": {
            "num_workers": 8,
            "batch_size": 32,
            "optimizer": "adam",
            "seed": 1234,
            "adam": adam,
            "stft_lamb": 2.5,
            "spk_balanced": False,
        },
        "audio": {**audio, "segment_length": 64 * mel.hop_length, "pad_short": 2000},
        "gen": {theirs: generator.config[ours] for ours, theirs in _GEN.items()},
        "mpd": {"periods": periods, "kernel_size": 5, "stride": 3, **slope},
        "mrd": {"resolutions": str(resolutions), **slope},
        "dist_config": {"dist_backend": "nccl", "dist_url": "tcp://localhost:54321", "world_size": 1},
        "log": {
            "summary_interval": 1,
            "validation_interval": 1,
            "save_interval": 1,
            "num_audio": 5,
            "chkpt_dir": "chkpt",
            "log_dir": "logs",
        },
    }
    model_g = _theirs(_weight_normed(generator, Generator(**generator.config)), _GENERATOR)
    fresh = Discriminator(MultiResolutionSpectrogramDiscriminator(resolutions), MultiPeriodDiscriminator(periods))
    model_d = _theirs(_weight_normed(discriminator, fresh), _discriminator_names(discriminator))
    return {
        "model_g": model_g,
        "model_d": model_d,
        "optim_g": _fresh_optimizer(model_g, adam),
        "optim_d": _fresh_optimizer(model_d, adam),
        "step": step,
        "epoch": epoch,
        "hp_str": yaml.safe_dump(hp, sort_keys=False),
        "githash": "univnet",
    }


def write_mindslab(path: str | PathLike[str], checkpoint: Mapping[str, Any]) -> Path:
    """Write what ``to_mindslab`` returns, whole or not at all; return the path."""
    with written_whole(path) as partial:
        torch.save(dict(checkpoint), partial)
    return Path(path)


def _hyperparameters(text: Any, where: str) -> dict[str, Any]:
    try:
        hp = yaml.safe_load(text)
    except (yaml.YAMLError, AttributeError, TypeError, RecursionError) as error:
        raise ValueError(f"{where}: its hp_str is no YAML") from error
    if not isinstance(hp, dict):
        raise ValueError(f"{where}: its hp_str is no mapping")
    return hp


def _read_discriminator(model_d: Any, hp: Mapping[str, Any], where: str) -> Discriminator:
    part = f"model_d of {where}"
    state = _without_ddp(check_tensors(model_d, part))
    try:
        if hp["mrd"]["use_spectral_norm"] or hp["mpd"]["use_spectral_norm"]:
            raise ValueError("they have spectral norm, which ours do not")
        resolutions = ast.literal_eval(str(hp["mrd"]["resolutions"]))  # they evaluate it; here only numbers are read
        slope = hp["mpd"]["lReLU_slope"]  # in their code also the MRD's
        with torch.device("meta"):
            discriminator = Discriminator(
                MultiResolutionSpectrogramDiscriminator(resolutions, leaky_slope=slope),
                MultiPeriodDiscriminator(
                    hp["mpd"]["periods"],
                    kernel_size=hp["mpd"]["kernel_size"],
                    stride=hp["mpd"]["stride"],
                    leaky_slope=slope,
                ),
            )
    except (KeyError, TypeError, ValueError, SyntaxError, RuntimeError, MemoryError) as error:
        raise ValueError(f"{where}: the discriminators in its hp_str cannot be built: {error}") from error
    names = _discriminator_names(discriminator)
    fill(discriminator, state, part, lambda name: _renamed(name, names))
    return discriminator


def _discriminator_names(discriminator: Discriminator) -> tuple[tuple[str, str], ...]:
    parts = (("mrd", "MRD", discriminator.mrd.discriminators), ("mpd", "MPD", discriminator.mpd.discriminators))
    numbered = [
        (rf"^{ours}\.discriminators\.{name}\.", f"{theirs}.discriminators.{number}.")
        for ours, theirs, each in parts
        for number, name in enumerate(each)
    ]
    return (*_WEIGHT_NORM, *numbered)


def _renamed(name: str, replacements: Iterable[tuple[str, str]]) -> str:
    for pattern, new in replacements:
        name = re.sub(pattern, new, name)
    return name


def _theirs(state: Mapping[str, Tensor], replacements: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    return {_renamed(name, replacements): value.detach().cpu().clone() for name, value in state.items()}


def _without_ddp(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix("module."): value for name, value in state.items()}


def _weight_normed(module: nn.Module, like: nn.Module) -> dict[str, Tensor]:
    """Return the weight-normed state of ``module``, which may have had it folded."""
    if any(".parametrizations." in name for name in module.state_dict()):
        return module.state_dict()
    load_plain_state_dict(like, module.state_dict())
    return like.state_dict()


def _fresh_optimizer(state: Mapping[str, Tensor], adam: Mapping[str, float]) -> dict[str, Any]:
    parameters = [torch.nn.Parameter(torch.empty(0)) for _ in state]
    betas = (adam["beta1"], adam["beta2"])
    return torch.optim.AdamW(parameters, lr=adam["lr"], betas=betas).state_dict()


def _views(discriminator: Discriminator) -> tuple[list[tuple[int, int, int]], list[int]]:
    """Return the resolutions and the periods."""
    mrd, mpd = ([*part.discriminators.values()] for part in (discriminator.mrd, discriminator.mpd))
    resolutions: Any = [(each.n_fft, each.hop, each.window) for each in mrd]
    periods: Any = [each.period for each in mpd]
    return resolutions, periods


def _check_expressible(generator: Any, discriminator: Any, mel: LogMelSpectrogram) -> None:
    differ = []
    if type(generator) is not Generator:
        differ.append(f"the generator is a {type(generator).__name__}")
    else:
        fixed = {name: value for name, value in generator.config.items() if name in _GEN_FIXED}
        differ += [f"{k} is {v}, there {_GEN_FIXED[k]}" for k, v in fixed.items() if v != _GEN_FIXED[k]]
    if mel.hop_length != 256:
        differ.append(f"hop_length is {mel.hop_length}, there 256")
    if mel.floor != 1e-5:
        differ.append(f"the mel's floor is {mel.floor:g}, there 1e-05")
    if type(discriminator) is not Discriminator:
        differ.append(f"the discriminator is a {type(discriminator).__name__}")
    else:
        resolutions, periods = _views(discriminator)
        plain = Discriminator(MultiResolutionSpectrogramDiscriminator(resolutions), MultiPeriodDiscriminator(periods))
        theirs, ours = (
            {name: (each.stride, each.padding, each.weight.shape) for name, each in _convs(module)}
            for module in (plain, discriminator)
        )
        wrong = sorted(name for name in theirs.keys() | ours.keys() if theirs.get(name) != ours.get(name))
        differ += [f"discriminator.{name} has another shape or stride than there" for name in wrong[:1]]
        if any(getattr(part, "leaky_slope", None) != 0.2 for part in discriminator.parts().values()):
            differ.append("the discriminators' leaky_slope is not 0.2")
    if differ:
        raise ValueError(f"the reference's code cannot express this model: {'; '.join(differ)}")


def _convs(module: nn.Module) -> list[tuple[str, nn.Conv2d]]:
    return [(name, each) for name, each in module.named_modules() if isinstance(each, nn.Conv2d)]
