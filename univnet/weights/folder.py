"""A folder to publish: safetensors, a JSON configuration, and a model card; from a disk or the Hugging Face hub."""

import json
import re
from collections.abc import Mapping
from difflib import get_close_matches
from os import PathLike
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor

from univnet.audio import LogMelSpectrogram
from univnet.common.files import NO_ROOM, write_text
from univnet.convert import plain_state_dict
from univnet.models import BaseGenerator, generator_class, generator_name
from univnet.weights.reading import build_generator, build_mel, check_tensors, read_json, read_safetensors
from univnet.weights.writing import write_safetensors

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
JUDGES, JUDGES_CONFIG = "discriminator.safetensors", "discriminator.json"
KIND = "univnet-vocoder"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_DEMO = Path(__file__).parents[2] / "data" / "pretrained"  # in a checkout of the repository
_ABOUT = ("data", "license", "updates", "weights", "metrics")


class Published(NamedTuple):
    """What a folder holds: the generator, its mel-spectrogram, and what is told about them."""

    generator: BaseGenerator
    mel: LogMelSpectrogram
    about: dict[str, Any]


def save_folder(
    folder: str | PathLike[str],
    generator: BaseGenerator,
    mel: LogMelSpectrogram,
    about: Mapping[str, Any] | None = None,
    half: bool = False,
) -> Path:
    """Write ``model.safetensors``, ``config.json`` and ``README.md`` (a model card) to ``folder``.

    Args:
        folder: made where missing; files of these names are replaced.
        generator: its weights are written as they take effect, without weight normalization.
        mel: the mel-spectrogram it was trained on.
        about: what the card tells, all optional: ``data``, ``license`` (an SPDX identifier), ``updates``,
            ``weights`` (raw or averaged) and ``metrics`` (a mapping of names to numbers).
        half: write the weights in 16 bits, half the size; they are float32 again when they are read.

    Returns:
        The folder.

    Raises:
        ValueError: ``folder`` is a file, ``about`` has something else, or a weight does not fit into 16 bits.
    """
    folder, about = Path(folder), dict(about or {})
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"{folder} is a file: name a folder")
    if unknown := sorted(about.keys() - set(_ABOUT)):
        raise ValueError(f"a model card knows {', '.join(_ABOUT)}, not {', '.join(unknown)}")
    config = {
        "model_type": KIND,
        "generator_class": generator_name(type(generator)),
        "generator": generator.config,
        "mel": mel.config,
        "about": about,
    }
    text = json.dumps(config, indent=2, allow_nan=False, ensure_ascii=False) + "\n"  # first: it may not be writable
    write_safetensors(folder / WEIGHTS, plain_state_dict(generator), half)
    write_text(folder / CONFIG, text)
    write_text(folder / CARD, model_card(generator, mel, about))
    return folder


def read_folder(folder: str | PathLike[str]) -> Published:
    """Read what ``save_folder`` wrote, or a folder of ``transformers.UnivNetModel``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, or they do not fit each other.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    if config.get("model_type") == "univnet":
        from univnet.weights.transformers_folder import read_transformers

        return Published(*read_transformers(folder), {})
    if config.get("model_type") != KIND:
        raise ValueError(
            f"{folder / CONFIG} describes a model of type {config.get('model_type')!r}, not a vocoder of ours"
        )
    where = str(folder / WEIGHTS)
    try:
        kind = generator_class(config.get("generator_class"))
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG}: {error}") from error
    state = check_tensors(read_safetensors(where), where)
    generator = build_generator(config.get("generator"), state, where, kind)
    about = config.get("about")
    return Published(generator, build_mel(config.get("mel"), generator, str(folder / CONFIG)), dict(about or {}))


def save_discriminator(
    folder: Path, state: Mapping[str, Tensor], config: Mapping[str, Any] | None, half: bool = False
) -> None:
    """Write a discriminator beside the generator in place of the one there: its weights, and how it is built if known.

    Without weights there is none afterwards. ``half`` as in ``save_folder``.
    """
    for name in (JUDGES, JUDGES_CONFIG):
        (folder / name).unlink(missing_ok=True)
    if not state:
        return
    if config is not None:
        write_text(folder / JUDGES_CONFIG, json.dumps(config, indent=2, allow_nan=False) + "\n")
    write_safetensors(folder / JUDGES, state, half)


def read_discriminator(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any] | None]:
    """Return the weights of the discriminator beside the generator and how it is built, as far as they are there."""
    state = read_safetensors(folder / JUDGES) if (folder / JUDGES).is_file() else {}
    return state, read_json(folder / JUDGES_CONFIG) if (folder / JUDGES_CONFIG).is_file() else None


def find_folder(name: str | PathLike[str], revision: str | None = None, discriminator: bool = False) -> Path:
    """Return the folder that ``name`` means: one on this disk, ``"demo"``, or a hub's, downloaded to its cache.

    Args:
        name: of the folder.
        revision: a branch, tag or commit of the hub's.
        discriminator: download it, too, if there is one.

    Raises:
        FileNotFoundError: there is no such folder, here or on the hub.
    """
    path = Path(name)
    if path.is_dir():
        return path
    if str(name) == "demo":
        if not (_DEMO / CONFIG).is_file():
            raise FileNotFoundError(
                "the demo's vocoder is in data/pretrained of the repository: run from a checkout of it"
            )
        return _DEMO
    if not _HUB_ID.fullmatch(str(name)):
        guess = " (did you mean demo?)" if get_close_matches(str(name).lower(), ["demo"], cutoff=0.75) else ""
        raise FileNotFoundError(f"there is no folder {name}{guess}, and it is no OWNER/NAME of the hub either")
    # Imported here: with a folder on this disk nothing asks for the network.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    wanted = [CONFIG, WEIGHTS, "preprocessor_config.json", *([JUDGES, JUDGES_CONFIG] if discriminator else [])]
    try:
        return Path(snapshot_download(str(name), revision=revision, allow_patterns=wanted))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        answered = isinstance(error, HfHubHTTPError) and not isinstance(error, LocalEntryNotFoundError)
        what = "the hub gave none of that name" if answered else "the hub could not be reached to ask for one"
        reason = str(error).strip().splitlines()[0]
        raise FileNotFoundError(f"there is no folder {name}, and {what}: {reason}") from error


def model_card(generator: Any, mel: LogMelSpectrogram, about: Mapping[str, Any]) -> str:
    """Return a model card: what the hub reads (YAML), and what people read."""
    from huggingface_hub import ModelCard, ModelCardData

    data = ModelCardData(
        library_name="univnet",
        license=about.get("license"),
        pipeline_tag="audio-to-audio",
        tags=["vocoder", "univnet", "mel-spectrogram", "speech"],
    )
    size = sum(tensor.numel() for tensor in plain_state_dict(generator).values())
    made = f"{mel.n_mels} bands, {mel.f_min:g} to {mel.f_max:g} Hz, FFT {mel.n_fft}, hop {mel.hop_length}"
    facts = {
        "generator": f"{type(generator).__name__}, {size / 1e6:.2f} M parameters",
        "audio": f"{mel.sample_rate} Hz, mono",
        "mel-spectrogram": f"{made}, natural logarithm of magnitudes of at least {mel.floor:g}",
        "trained on": about.get("data", "not told"),
        "license": about.get("license", "not told"),
        "generator updates": about.get("updates", "not told"),
        "weights": about.get("weights", "not told"),
    }
    facts |= {str(name): f"{value:.4g}" for name, value in dict(about.get("metrics", {})).items()}
    table = "\n".join(f"| {name} | {value} |" for name, value in facts.items())
    text = f"""---
{data.to_yaml()}
---

# A UnivNet vocoder

It turns log-mel-spectrograms into audio (Jang et al. 2021, [arXiv 2106.07889](https://arxiv.org/abs/2106.07889)).

| | |
|---|---|
{table}

```python
from univnet import Vocoder

vocoder = Vocoder.from_pretrained("THIS FOLDER")
audio = vocoder(mel)  # (batch, {mel.n_mels}, frames) -> (batch, 1, frames * {mel.hop_length})
mel = vocoder.mel(audio)  # the mel-spectrogram that it takes
```
"""
    return str(ModelCard(text))
