"""The contracts: what training, validation and ``Vocoder`` need of a generator, and training of a discriminator."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from univnet.common.padding import cut_ends
from univnet.models.weight_norm import fold_weight_norm


class BaseGenerator(nn.Module, ABC):
    """Makes audio from mel-spectrograms. ``register_generator`` lets ``Vocoder`` load a subclass from checkpoints."""

    n_mels: int  # mel bands
    hop_length: int  # audio samples per mel frame
    context_frames: int  # how many mel frames on either side of a frame its audio depends on, at most
    noise_channels: int = 0  # of the input noise, per mel frame; 0 if it takes none
    cuts: bool = False  # whether ``forward`` takes ``cut`` and saves work by it, see ``cut_audio``

    @property
    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments as plain numbers, strings and lists, from which it is rebuilt."""

    @abstractmethod
    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Return audio (batch, 1, frames · hop_length) in [−1, 1] for ``mel`` (batch, n_mels, frames) and its noise."""

    def draw_noise(self, mel: Tensor, source: torch.Generator | None = None) -> Tensor:
        """Draw the standard normal noise for ``mel``: (batch, noise_channels, frames), empty if it takes none."""
        shape = (mel.shape[0], self.noise_channels, mel.shape[2])
        return torch.randn(shape, generator=source, dtype=mel.dtype, device=mel.device)

    def blocks_to_compile(self) -> Iterable[nn.Module]:
        """Return the modules that ``compile=True`` compiles, each by itself; by default the whole generator."""
        return (self,)

    def remove_weight_norm(self) -> None:
        """Fold weight normalization into plain weights (new parameters), in place; a second call changes nothing."""
        fold_weight_norm(self)


def cut_audio(generator: BaseGenerator, mel: Tensor, noise: Tensor, left: int, right: int) -> Tensor:
    """Return the audio without that of the first ``left`` and the last ``right`` frames, which are context alone.

    A generator that ``cuts`` is called with ``cut=(left, right)``, so that it need not make what is cut away.
    """
    if generator.cuts:
        audio: Tensor = generator(mel, noise, cut=(left, right))
        return audio
    return cut_ends(generator(mel, noise), left * generator.hop_length, right * generator.hop_length)


class BaseDiscriminator(nn.Module, ABC):
    """Judges audio by its parts, the sub-discriminators, which training runs one after the other."""

    @abstractmethod
    def parts(self) -> Mapping[str, nn.Module]:
        """Return the sub-discriminators by name: each maps audio (batch, 1, samples) to scores, of any shape.

        For feature matching they also take ``with_features=True`` and return (scores, list of the layers' outputs).
        """

    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        """Return each part's scores of audio (batch, 1, samples), by its name."""
        return {name: part(audio) for name, part in self.parts().items()}
