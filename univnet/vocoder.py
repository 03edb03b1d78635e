"""Load a trained vocoder and make audio with it."""

import math
from collections.abc import Iterable, Iterator, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from univnet.audio import LogMelSpectrogram
from univnet.common.precision import full_precision
from univnet.common.tensors import require_tensor
from univnet.models import BaseGenerator
from univnet.models.base import cut_audio
from univnet.models.streaming import EDGE_FRAMES, FrameNoise, Stream
from univnet.weights.reading import read_pickle
from univnet.weights.sources import weights_of_checkpoint

CHUNK_FRAMES = 384  # longer input is made in pieces; at 256 samples a frame, c32's largest tensor is then 25 MB
CHUNK_FRAMES_ON_CPU = 192  # so that glibc keeps the freed memory of one piece for the next
TAIL_FRAMES = 32  # the last piece is a multiple of this, where there is room


class Vocoder(nn.Module):
    """Turn log-mel-spectrograms into audio.

    Weight normalization is folded once, here. Long input is made in overlapping chunks, so that the memory it takes
    beyond the audio itself does not grow with its length; on a CPU that is faster, too, because the chunks stay in
    the cache. The audio is that of the whole input up to rounding (1e-5).

    Args:
        generator: a trained generator, of any kind that keeps to ``BaseGenerator``; its weight norm is folded away.
        mel: the mel-spectrogram it was trained on.

    Attributes:
        about: what is known of its training, for the model card: ``data``, ``license``, ``updates``, ``weights``
            (raw or averaged), ``metrics``.
    """

    def __init__(self, generator: BaseGenerator, mel: LogMelSpectrogram) -> None:
        super().__init__()
        self.generator, self.mel = generator, mel
        self.about: dict[str, Any] = {}
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
        found = weights_of_checkpoint(read_checkpoint(path), str(path), weights)
        vocoder = cls(*found.build())
        vocoder.about = found.about
        return vocoder

    @classmethod
    def from_pretrained(cls, name: str | PathLike[str], revision: str | None = None) -> Self:
        """Load what ``save_pretrained`` wrote, or a folder of ``transformers.UnivNetModel``.

        Args:
            name: a folder, an ``OWNER/NAME`` of the Hugging Face hub, or ``"demo"``: the small vocoder in the
                repository's ``data/pretrained``. A folder needs no network.
            revision: a branch, tag or commit of the hub's.

        Raises:
            FileNotFoundError: there is no such folder, or a file is missing in it.
            ValueError: a file is damaged, or they do not fit each other.
        """
        from univnet.weights.folder import find_folder, read_folder

        generator, mel, about = read_folder(find_folder(name, revision))
        vocoder = cls(generator, mel)
        vocoder.about = about
        return vocoder

    def save_pretrained(
        self, folder: str | PathLike[str], about: Mapping[str, Any] | None = None, half: bool = False
    ) -> Path:
        """Write safetensors, a JSON configuration and a model card to ``folder``; return it.

        Args:
            folder: made where missing; ``hf upload OWNER/NAME FOLDER`` publishes it.
            about: added to ``about``, such as ``{"data": "LibriTTS", "license": "cc-by-4.0"}``.
            half: write the weights in 16 bits, half the size; they are float32 again when they are read.

        Raises:
            ValueError: ``folder`` is a file, ``about`` has what no card knows, or a weight does not fit into 16 bits.
        """
        from univnet.weights.folder import save_folder

        return save_folder(folder, self.generator, self.mel, {**self.about, **(about or {})}, half)

    @property
    def sample_rate(self) -> int:
        """The rate of the audio it makes, in Hz."""
        return self.mel.sample_rate

    @torch.inference_mode()
    def forward(self, mel: Tensor, seed: int | None = 0, chunk_frames: int | Literal["auto"] | None = "auto") -> Tensor:
        """Return audio (batch, 1, frames × hop length) in [−1, 1] for ``mel`` (batch, n_mels, frames).

        Args:
            mel: natural-log mel-spectrograms of the kind that ``vocoder.mel`` makes.
            seed: fixes the input noise, so that equal inputs give equal audio; ``None`` draws fresh noise. A frame's
                noise depends on its place and the batch size, not on how many frames follow.
            chunk_frames: make so many frames at a time, neighbours overlapping by twice ``generator.context_frames``;
                "auto": 192 on a CPU, 384 elsewhere; ``None`` makes the whole at once. Memory grows with it and with the
                batch: some 200 MB for 384 frames of c32.

        Raises:
            TypeError: for what is no tensor.
            ValueError: for another shape, or chunks no longer than their overlap.
        """
        require_tensor(mel, "the mel-spectrogram")
        bands, weight = self.mel.n_mels, next(self.generator.parameters())
        if mel.ndim != 3 or mel.shape[1] != bands:
            raise ValueError(f"expected a mel-spectrogram of shape (batch, {bands}, frames), got {tuple(mel.shape)}")
        overlap = 2 * self.generator.context_frames
        if chunk_frames == "auto":
            chunk_frames = self._chunk_frames()
        if chunk_frames is not None and chunk_frames <= overlap:
            raise ValueError(f"chunk_frames must be more than the overlap of {overlap} frames, or None: {chunk_frames}")
        mel = mel.to(weight.dtype)
        padded = F.pad(mel, (EDGE_FRAMES, EDGE_FRAMES), value=self.silence)
        # Drawn for the whole, so that the audio does not depend on the chunks.
        noise = FrameNoise(len(mel), self.generator.noise_channels, seed, mel.dtype, mel.device).take(padded.shape[2])
        with full_precision(mel.device):
            return self._in_chunks(padded, noise, chunk_frames)

    def stream(
        self, mel_chunks: Iterable[Tensor], seed: int | None = 0, chunk_frames: int | Literal["auto"] = "auto"
    ) -> Iterator[Tensor]:
        """Yield audio as frames come: together, what ``forward`` gives for the whole mel, up to rounding (1e-5).

        A frame's audio is yielded once ``generator.context_frames`` more frames have come (17 for UnivNet's sizes:
        0.18 s at 24 kHz), the last ones' at the end. Memory does not grow with the length. Each chunk costs
        the work of twice ``context_frames`` frames on top, so chunks of some dozens of frames cost less than single
        ones.

        Args:
            mel_chunks: the mel in pieces (batch, n_mels, frames), of any number of frames each.
            seed: of the input noise, as in ``forward``.
            chunk_frames: longer pieces are made so many frames at a time; "auto" as in ``forward``.

        Yields:
            Audio (batch, 1, samples), at least one sample.

        Raises:
            TypeError: for a piece that is no tensor.
            ValueError: for a piece of another shape, or chunks no longer than their overlap.
        """
        stream = self.open_stream(seed, chunk_frames)
        for mel in mel_chunks:
            if (audio := stream.push(mel)).shape[2]:
                yield audio
        if (audio := stream.flush()).shape[2]:
            yield audio

    def open_stream(self, seed: int | None = 0, chunk_frames: int | Literal["auto"] = "auto") -> Stream:
        """Return what ``stream`` uses, to ``push`` frames as they come and to ``flush`` at the end."""
        window = self._chunk_frames() if chunk_frames == "auto" else chunk_frames
        return Stream(self.generator, seed, EDGE_FRAMES, self.silence, window)

    @property
    def silence(self) -> float:
        """The value of a mel frame without sound."""
        return math.log(self.mel.floor)

    def _chunk_frames(self) -> int:
        on_cpu = next(self.generator.parameters()).device.type == "cpu"
        return max(CHUNK_FRAMES_ON_CPU if on_cpu else CHUNK_FRAMES, 4 * self.generator.context_frames)

    def _in_chunks(self, mel: Tensor, noise: Tensor, chunk_frames: int | None) -> Tensor:
        """Return the audio of all frames but the ``EDGE_FRAMES`` at both ends."""
        frames, hop, context = mel.shape[2], self.generator.hop_length, self.generator.context_frames
        if chunk_frames is None or frames <= chunk_frames:
            return cut_audio(self.generator, mel, noise, EDGE_FRAMES, EDGE_FRAMES)
        done, until = EDGE_FRAMES, frames - EDGE_FRAMES
        audio = mel.new_empty(len(mel), 1, (until - done) * hop)
        while done < until:
            first = max(done - context, 0)
            last = min(first + chunk_frames, frames)
            if last == frames:  # rounded up for few different lengths: the CPU prepares for each new one
                length = math.ceil((last - first) / TAIL_FRAMES) * TAIL_FRAMES
                first = frames - min(length, chunk_frames)
            end = until if last == frames else last - context
            piece = cut_audio(self.generator, mel[..., first:last], noise[..., first:last], done - first, last - end)
            audio[..., (done - EDGE_FRAMES) * hop : (end - EDGE_FRAMES) * hop] = piece
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
    checkpoint = read_pickle(path)
    if not isinstance(checkpoint, dict) or not {"univnet", "state_dict"} <= checkpoint.keys():
        raise ValueError(f"{path} is not a checkpoint that univnet's training wrote")
    return checkpoint
