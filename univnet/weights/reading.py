"""Files of weights from strangers: only tensors and plain values are read from them, no code is run."""

import json
import pickle
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from univnet.audio import LogMelSpectrogram
from univnet.common.files import check_zip
from univnet.models import BaseGenerator, Generator
from univnet.models.weight_norm import fold_weight_norm

_GAIN = "parametrizations.weight.original0"  # ends the names of weight normalization's gains
_BEGINNINGS = (b"PK", b"\x80")  # of what torch.save writes: a ZIP file, or a pickle as before torch 1.6
_LARGEST_JSON = 1 << 20  # bytes


def read_pickle(path: str | PathLike[str]) -> Any:
    """Return what ``torch.save`` wrote to ``path``, on the CPU, with ``weights_only=True``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it holds anything but tensors and plain values, or is damaged.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    with path.open("rb") as file:
        beginning = file.read(2)
    if not beginning.startswith(_BEGINNINGS):
        raise ValueError(f"{path} is no checkpoint: give a file of weights, such as training's .ckpt")
    if zipfile.is_zipfile(path):  # torch itself does not look at the checksums
        check_zip(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        code = "global" in str(error).lower() or "unsupported" in str(error).lower()
        what = "holds code besides weights and is not loaded" if code else "is no file of weights"
        raise ValueError(f"{path} {what}: give a file of tensors and plain values") from error
    except Exception as error:  # torch raises many kinds for a file that is damaged
        raise ValueError(f"{path} is damaged or no file of weights: give another one") from error


def read_safetensors(path: str | PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors in a safetensors file, on the CPU.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or no such file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no file {path}")
    try:
        return load_file(path)
    except (SafetensorError, ValueError, KeyError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file: give another one") from error


def read_json(path: str | PathLike[str]) -> dict[str, Any]:
    """Return the object in a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no JSON object, or larger than 1 MiB.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    if path.stat().st_size > _LARGEST_JSON:
        raise ValueError(f"{path} is larger than {_LARGEST_JSON} bytes, which no configuration is")
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON: {error}") from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} must hold one JSON object")
    return found


def check_tensors(state: Any, where: str) -> dict[str, Tensor]:
    """Return ``state`` if it is a mapping of names to tensors.

    Raises:
        ValueError: it is not; names ``where``.
    """
    if not isinstance(state, Mapping) or not state:
        raise ValueError(f"{where} holds no weights by name")
    wrong = [str(name) for name, value in state.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if wrong:
        raise ValueError(f"{where} holds {wrong[0]!r}, which is no weight: give a file of weights by name")
    return dict(state)


def build_generator(
    config: Any,
    state: Mapping[str, Tensor],
    where: str,
    kind: type[BaseGenerator] = Generator,
    theirs: Callable[[str], str] = str,
) -> BaseGenerator:
    """Return a generator with these weights, as they are in ``state``: weight-normed, or as they take effect.

    It is built without memory first, so that a configuration of absurd sizes costs nothing.

    Args:
        config: the constructor's arguments.
        state: names and tensors.
        where: the file, for messages.
        kind: the class.
        theirs: maps our name of a weight to the one in ``state``.

    Raises:
        ValueError: the arguments are not the constructor's, or the weights do not fit them: names what differs.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"{where} does not say how its generator is built")
    try:
        with torch.device("meta"):
            generator: Any = kind(**config)
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{where} describes no generator that can be built: {error}") from error
    fill(generator, state, where, theirs)
    with torch.random.fork_rng(devices=[]):  # again, with what a state dict does not hold; the weights are replaced
        generator = kind(**config)
    fill(generator, state, where, theirs)
    return generator


def fill(module: Any, state: Mapping[str, Tensor], where: str, theirs: Callable[[str], str] = str) -> None:
    """Give ``module`` the weights in ``state``, weight-normed or not as they are there.

    Raises:
        ValueError: names or shapes differ: names the first that does.
    """
    if not any(name.endswith(theirs(_GAIN)) for name in state):
        fold_weight_norm(module)
    left, found, differ = dict(state), {}, []
    for name, value in module.state_dict().items():
        given = left.pop(theirs(name), None)
        if given is None or given.shape != value.shape:
            shape = "missing" if given is None else tuple(given.shape)
            differ.append(f"{theirs(name)} is {shape} in the file and {tuple(value.shape)} here")
        else:
            found[name] = given.float()
    differ += [f"{name} is {tuple(value.shape)} in the file and missing here" for name, value in left.items()]
    if differ:
        more = f", and {len(differ) - 1} more differ" if len(differ) > 1 else ""
        raise ValueError(f"the weights in {where} do not fit what it describes: {differ[0]}{more}")
    module.load_state_dict(found, assign=True)


def build_mel(config: Any, generator: Any, where: str) -> LogMelSpectrogram:
    """Return the mel-spectrogram that a file describes, if it fits the generator.

    Raises:
        ValueError: names everything that does not fit.
    """
    if not isinstance(config, Mapping):
        raise ValueError(f"{where} does not say how its mel-spectrogram is made")
    for name in ("n_mels", "hop_length"):
        if config.get(name) != getattr(generator, name):
            raise ValueError(
                f"{where}: the mel's {name} is {config.get(name)}, but the generator takes {getattr(generator, name)}"
            )
    try:
        return LogMelSpectrogram(**config)
    except TypeError as error:
        raise ValueError(f"{where} describes no mel-spectrogram: {error}") from error
