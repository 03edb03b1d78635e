"""Weights from wherever they come: our checkpoints, published folders, the reference's checkpoints, bare files."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any, Literal

from torch import Tensor

from univnet.audio import LogMelSpectrogram
from univnet.gan import averaged_weights
from univnet.models import Discriminator, generator_class, generator_name
from univnet.weights.discriminators import build_discriminator, discriminator_config
from univnet.weights.folder import find_folder, read_discriminator, read_folder
from univnet.weights.mindslab import from_mindslab
from univnet.weights.reading import build_generator, build_mel, check_tensors, read_pickle, read_safetensors

Choice = Literal["auto", "averaged", "raw"]
_PLAYERS = ("generator", "discriminator")


@dataclass(frozen=True)
class Weights:
    """What a file of weights holds, by our names.

    Attributes:
        where: the file, for messages.
        kind: what it is, in words.
        generator: the generator's weights, weight-normed or as they take effect; empty where there are none.
        discriminator: the discriminator's, likewise.
        generator_config: the generator's arguments, if they are told.
        generator_class: the name that the generator's class is registered under.
        mel_config: the mel-spectrogram's arguments, if they are told.
        discriminator_config: how the discriminator is built (``univnet.weights.discriminators``), if that is told.
        about: what is known of the training.
    """

    where: str
    kind: str
    generator: dict[str, Tensor] = field(default_factory=dict)
    discriminator: dict[str, Tensor] = field(default_factory=dict)
    generator_config: dict[str, Any] | None = None
    generator_class: str = "Generator"
    mel_config: dict[str, Any] | None = None
    discriminator_config: dict[str, Any] | None = None
    about: dict[str, Any] = field(default_factory=dict)

    def build(self) -> tuple[Any, LogMelSpectrogram]:
        """Return the generator and its mel-spectrogram.

        Raises:
            ValueError: the file does not tell how they are built, or does not fit what it tells.
        """
        if self.generator_config is None or self.mel_config is None:
            raise ValueError(f"{self.where} is {self.kind}, which does not tell how its generator is built")
        try:
            kind = generator_class(self.generator_class)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from error
        generator = build_generator(self.generator_config, self.generator, self.where, kind)
        return generator, build_mel(self.mel_config, generator, self.where)

    def build_discriminator(self) -> Discriminator:
        """Return the discriminator.

        Raises:
            ValueError: there is none, or one that is not UnivNet's.
        """
        if not self.discriminator:
            raise ValueError(f"{self.where} is {self.kind} and holds no discriminators, which this needs")
        return build_discriminator(self.discriminator_config, self.discriminator, self.where)


def read_weights(path: str | PathLike[str], weights: Choice = "auto") -> Weights:
    """Read the weights in ``path``; only tensors and plain values are read.

    Args:
        path: a checkpoint of our training or of the reference's; a folder that ``save_pretrained`` or ``transformers``
            wrote, or its name on the hub; a safetensors file or a state dict, with ``generator.`` and
            ``discriminator.`` before the names, or of the generator alone.
        weights: which of our checkpoint's generator: ``"auto"`` takes the averaged ones where there are any.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it is damaged, holds code, or no weights that are known here.
    """
    path = Path(path)
    if not path.is_file():
        found = find_folder(path, discriminator=True)
        published = read_folder(found)
        state = published.generator.state_dict()
        judges, judges_config = read_discriminator(found)
        return Weights(
            str(found),
            "a published folder",
            state,
            judges,
            generator_config=_config(published.generator),
            generator_class=generator_name(type(published.generator)),
            mel_config=published.mel.config,
            discriminator_config=judges_config,
            about=published.about,
        )
    content = read_safetensors(path) if path.suffix == ".safetensors" else read_pickle(path)
    if not isinstance(content, Mapping):
        raise ValueError(f"{path} holds no weights by name")
    if {"univnet", "state_dict"} <= content.keys():
        return weights_of_checkpoint(content, str(path), weights)
    if "model_g" in content:
        model = from_mindslab(content, str(path))
        return Weights(
            str(path),
            "a checkpoint of the reference",
            model.generator.state_dict(),
            {} if model.discriminator is None else dict(model.discriminator.state_dict()),
            generator_config=model.generator.config,
            mel_config=model.mel.config,
            discriminator_config=None if model.discriminator is None else discriminator_config(model.discriminator),
            about={"updates": model.step} if model.step else {},
        )
    state = check_tensors(content, str(path))
    players = _by_player(state) or {"generator": state}
    return Weights(str(path), "a file of bare weights", players.get("generator", {}), players.get("discriminator", {}))


def weights_of_checkpoint(checkpoint: Mapping[str, Any], where: str, weights: Choice) -> Weights:
    """Return what a loaded checkpoint of ours holds.

    Raises:
        ValueError: it holds no averaged weights, which are asked for.
    """
    players = _by_player(check_tensors(checkpoint["state_dict"], where))
    averaged = None if weights == "raw" else averaged_weights(checkpoint)
    if averaged is None and weights == "averaged":
        raise ValueError(f"{where} holds no averaged weights: take weights='auto' or 'raw'")
    about = checkpoint["univnet"]
    return Weights(
        where,
        "a checkpoint of univnet's training",
        averaged or players.get("generator", {}),
        players.get("discriminator", {}),
        generator_config=about.get("generator"),
        generator_class=about.get("generator_class", "Generator"),  # older checkpoints do not say
        mel_config=about.get("mel"),
        discriminator_config=about.get("discriminator"),  # older checkpoints do not say
        about=history(checkpoint) | {"weights": "averaged" if averaged else "raw"},
    )


def history(checkpoint: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a checkpoint of ours tells of its training: the updates, and the metrics it was chosen by."""
    kept = [state for state in checkpoint.get("callbacks", {}).values() if isinstance(state, dict)]
    scores = {state.get("monitor"): state.get("current_score") for state in kept}
    metrics = {name: float(score) for name, score in scores.items() if name and score is not None}
    known = {"updates": checkpoint.get("global_step"), "metrics": metrics}
    return {name: value for name, value in known.items() if value}


def _by_player(state: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """Return each player's weights without its name before theirs; empty where none has one."""
    players = {
        player: {n.removeprefix(f"{player}."): v for n, v in state.items() if n.startswith(f"{player}.")}
        for player in _PLAYERS
    }
    return {player: weights for player, weights in players.items() if weights}


def _config(generator: Any) -> dict[str, Any]:
    config: dict[str, Any] = generator.config
    return config
