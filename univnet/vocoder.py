"""Load a trained vocoder and make audio with it."""

import math
import pickle
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from univnet.audio import LogMelSpectrogram
from univnet.gan import averaged_weights
from univnet.models import BaseGenerator, generator_class

EDGE_FRAMES = 10  # of silence around the input: without them the first and last samples click
CHUNK_FRAMES = 384  # longer input is made in pieces; at 256 samples a frame, c32's largest tensor is then 25 MB
TAIL_FRAMES = 32  # the last piece is a multiple of this, where there is room


class Vocoder(nn.Module):
    """Turn log-mel-spectrograms into audio.

    Weight normalization is folded once, here. Long input is made in overlapping chunks, so that the memory it takes
    beyond the audio itself does not grow with its length; on a CPU that is faster, too, because the chunks stay in
    the cache. The audio is that of the whole input up to rounding (1e-5).

    Args:
        generator: a trained generator, of any kind that keeps to ``BaseGenerator``; its weight norm is folded away.
        mel: the mel-spectrogram it was trained on.
    """

    def __init__(self, generator: BaseGenerator, mel: LogMelSpectrogram) -> None:
        super().__init__()
        self.generator, self.mel = generator, mel
        self.generator.remove_weight_norm()
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_checkpoint(cls, path: str | PathLike[str], weights: Literal["auto", "averaged", "raw"] = "auto") -> Self:
        """Load from a training checkpoint; only tensors and plain types are read from it (``weights_only``).

        The generator is of the class that the checkpoint names, which must be ``Generator`` or registered by
        ``univnet.models.register_generator``.

        Args:
            path: the file.
            weights: ``"averaged"`` takes the SWA or EMA weights, ``"raw"`` the optimizer's, ``"auto"`` the averaged
                if there are any.

        Raises:
            FileNotFoundError: where there is no such file.
            ValueError: where it is not a checkpoint of this package, names a class that is not known here, or holds no
                averaged weights that are asked for.
        """
        checkpoint = read_checkpoint(path)
        about, prefix = checkpoint["univnet"], "generator."
        raw = {k.removeprefix(prefix): v for k, v in checkpoint["state_dict"].items() if k.startswith(prefix)}
        averaged = None if weights == "raw" else averaged_weights(checkpoint)
        if averaged is None and weights == "averaged":
            raise ValueError(f"{path} holds no averaged weights: take weights='auto' or 'raw'")
        chosen = averaged or raw
        try:
            kind = generator_class(about.get("generator_class", "Generator"))  # older ones do not say
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        generator = kind(**about["generator"])
        if not any(".parametrizations." in name for name in chosen):  # weights as they take effect
            generator.remove_weight_norm()
        generator.load_state_dict(chosen)
        return cls(generator, LogMelSpectrogram(**about["mel"]))

    @property
    def sample_rate(self) -> int:
        """The rate of the audio it makes, in Hz."""
        return self.mel.sample_rate

    @torch.inference_mode()
    def forward(self, mel: Tensor, seed: int | None = 0, chunk_frames: int | None = CHUNK_FRAMES) -> Tensor:
        """Return audio (batch, 1, frames × hop length) in [−1, 1] for ``mel`` (batch, n_mels, frames).

        Args:
            mel: natural-log mel-spectrograms of the kind that ``vocoder.mel`` makes.
            seed: fixes the input noise, so that equal inputs give equal audio; ``None`` draws fresh noise.
            chunk_frames: make so many frames at a time, neighbours overlapping by twice ``generator.context_frames``;
                ``None`` makes the whole at once. Memory grows with it and with the batch: some 200 MB for a chunk
                of c32.

        Raises:
            ValueError: for another shape, or chunks no longer than their overlap.
        """
        bands, weight = self.mel.n_mels, next(self.generator.parameters())
        if mel.ndim != 3 or mel.shape[1] != bands:
            raise ValueError(f"expected a mel-spectrogram of shape (batch, {bands}, frames), got {tuple(mel.shape)}")
        overlap = 2 * self.generator.context_frames
        if chunk_frames is not None and chunk_frames <= overlap:
            raise ValueError(f"chunk_frames must be more than the overlap of {overlap} frames, or None: {chunk_frames}")
        mel = mel.to(weight.dtype)
        silence = torch.log(torch.tensor(self.mel.floor)).item()
        padded = F.pad(mel, (EDGE_FRAMES, EDGE_FRAMES), value=silence)
        source = None if seed is None else torch.Generator(mel.device).manual_seed(seed)
        noise = self.generator.draw_noise(padded, source)  # for the whole: the audio does not depend on the chunks
        edge = EDGE_FRAMES * self.generator.hop_length
        return self._in_chunks(padded, noise, chunk_frames)[..., edge:-edge]

    def _in_chunks(self, mel: Tensor, noise: Tensor, chunk_frames: int | None) -> Tensor:
        frames, hop, context = mel.shape[2], self.generator.hop_length, self.generator.context_frames
        if chunk_frames is None or frames <= chunk_frames:
            return self.generator(mel, noise)
        audio = mel.new_empty(len(mel), 1, frames * hop)
        done = 0
        while done < frames:
            first = max(done - context, 0)
            last = min(first + chunk_frames, frames)
            if last == frames:  # rounded up for few different lengths: the CPU prepares for each new one
                length = math.ceil((last - first) / TAIL_FRAMES) * TAIL_FRAMES
                first = frames - min(length, chunk_frames)
            piece = self.generator(mel[..., first:last], noise[..., first:last])
            end = frames if last == frames else last - context
            audio[..., done * hop : end * hop] = piece[..., (done - first) * hop : (end - first) * hop]
            done = end
        return audio


def read_checkpoint(path: str | PathLike[str]) -> dict[str, Any]:
    """Return what a training checkpoint holds, on the CPU; only tensors and plain types are read, no code is run.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is not a checkpoint of this package.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"there is no checkpoint {path}")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        what = "holds code besides weights and is not loaded" if "global" in str(error).lower() else "is no checkpoint"
        raise ValueError(f"{path} {what}: give a file that univnet's training wrote") from error
    except Exception as error:  # torch raises many kinds for a file that is damaged
        raise ValueError(
            f"{path} is damaged or no checkpoint: give another file that univnet's training wrote"
        ) from error
    if not isinstance(checkpoint, dict) or not {"univnet", "state_dict"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint that univnet's training wrote")
    return checkpoint
