"""Audio while the mel still comes: the same as that of the whole mel, in memory that does not grow with it."""

from typing import Any

import torch
from torch import Tensor

from univnet.common.precision import full_precision
from univnet.common.tensors import require_tensor
from univnet.models.base import BaseGenerator, cut_audio

EDGE_FRAMES = 10  # of silence around the input: without them the first and last samples click
NOISE_FRAMES = 64  # drawn at a time: a whole mel's noise and a stream's are the same numbers, whatever comes at once


class FrameNoise:
    """Standard normal noise for one frame after the other, which depends on the seed but not on how it is asked for.

    In half precision it is that of float32, rounded: torch itself would draw other numbers.

    Args:
        batch: number of examples.
        channels: of the noise.
        seed: fixes the numbers; ``None`` draws from torch's default source.
        dtype: of the numbers.
        device: where they are drawn.
    """

    def __init__(
        self, batch: int, channels: int, seed: int | None, dtype: torch.dtype, device: torch.device | str
    ) -> None:
        self._block = (batch, channels, NOISE_FRAMES)
        self._dtype = dtype
        self._kind: dict[str, Any] = {
            "dtype": torch.promote_types(dtype, torch.float32),
            "device": torch.device(device),
        }
        self._source = None if seed is None else torch.Generator(device).manual_seed(seed)
        self._left = torch.empty(batch, channels, 0, **self._kind)

    def take(self, frames: int) -> Tensor:
        """Return the next ``frames`` frames, (batch, channels, frames)."""
        missing = frames - self._left.shape[2]
        blocks = [
            torch.randn(self._block, generator=self._source, **self._kind) for _ in range(0, missing, NOISE_FRAMES)
        ]
        noise = torch.cat([self._left, *blocks], dim=2)
        self._left = noise[..., frames:].clone()
        return noise[..., :frames].to(self._dtype)


class Stream:
    """Turn a mel that comes in pieces into audio.

    A frame's audio is final once ``generator.context_frames`` more frames are there: that is the latency. Each call
    runs the generator on the new frames and twice ``context_frames`` around them, so that pieces of some dozens of
    frames cost much less than single frames.

    Args:
        generator: in evaluation mode, without gradients.
        seed: of the noise (``FrameNoise``).
        edge_frames: frames of silence that are put before the first frame and after the last one, and cut away from
            the audio.
        silence: their value.
        window_frames: the generator runs on so many frames at most, which bounds the memory.

    Raises:
        ValueError: the window is no longer than its overlap.
    """

    def __init__(
        self, generator: BaseGenerator, seed: int | None, edge_frames: int, silence: float, window_frames: int
    ) -> None:
        if window_frames <= 2 * generator.context_frames:
            raise ValueError(
                f"window_frames must be more than the overlap of {2 * generator.context_frames} frames: {window_frames}"
            )
        self._generator, self._seed = generator, seed
        self._noise: FrameNoise | None = None
        self._edge_frames, self._silence, self._window_frames = edge_frames, silence, window_frames
        self._mel: Tensor | None = None  # frames that later audio depends on, and their noise
        self._mel_noise: Tensor | None = None
        self._first = 0  # number of the first frame that is kept; the silence before counts
        self._done = edge_frames  # number of the first frame whose audio has not been given
        self._closed = False

    @property
    def latency_frames(self) -> int:
        """Frames that must follow a frame before its audio comes."""
        return self._generator.context_frames

    @torch.inference_mode()
    def push(self, mel: Tensor) -> Tensor:
        """Take the next frames; return the audio that is final now.

        Args:
            mel: (batch, n_mels, frames), of any number of frames.

        Returns:
            (batch, 1, samples), maybe empty.

        Raises:
            TypeError: for what is no tensor.
            ValueError: for another shape, another batch size than before, or after ``flush``.
        """
        require_tensor(mel, "the mel-spectrogram")
        if self._closed:
            raise ValueError("the stream has been flushed: open another one")
        batch, bands = "batch" if self._mel is None else len(self._mel), self._generator.n_mels
        if mel.ndim != 3 or mel.shape[1] != bands or (self._mel is not None and len(mel) != batch):
            raise ValueError(f"expected frames of shape ({batch}, {bands}, frames), got {tuple(mel.shape)}")
        mel = mel.to(next(self._generator.parameters()).dtype)
        if self._mel is None:
            mel = torch.cat([self._edge(mel), mel], dim=2)
        audio = [mel.new_empty(len(mel), 1, 0)]
        step = self._window_frames - 2 * self._generator.context_frames
        for piece in mel.split(step, dim=2):
            self._append(piece)
            audio.append(self._audio(self._end - self._generator.context_frames))
        return torch.cat(audio, dim=2)

    @torch.inference_mode()
    def flush(self) -> Tensor:
        """Return the audio of the last frames, and end the stream.

        Returns:
            (batch, 1, samples); empty, (1, 1, 0), if nothing was pushed.
        """
        if self._closed or self._mel is None:
            self._closed = True
            return torch.empty(1, 1, 0)
        samples = (self._end - self._done) * self._generator.hop_length
        audio = self.push(self._edge(self._mel))
        self._closed = True
        return torch.cat([audio, self._audio(self._end)], dim=2)[..., :samples]

    @property
    def _end(self) -> int:
        assert self._mel is not None
        return self._first + self._mel.shape[2]

    def _edge(self, like: Tensor) -> Tensor:
        return like.new_full((*like.shape[:2], self._edge_frames), self._silence)

    def _append(self, mel: Tensor) -> None:
        if self._noise is None:
            self._noise = FrameNoise(len(mel), self._generator.noise_channels, self._seed, mel.dtype, mel.device)
        noise = self._noise.take(mel.shape[2])
        if self._mel is None or self._mel_noise is None:
            self._mel, self._mel_noise = mel, noise
        else:
            self._mel, self._mel_noise = torch.cat([self._mel, mel], dim=2), torch.cat([self._mel_noise, noise], dim=2)

    def _audio(self, end: int) -> Tensor:
        """Return the audio from the first frame not given yet to ``end``, and forget what it alone depends on."""
        mel, noise = self._mel, self._mel_noise
        assert mel is not None
        assert noise is not None
        if end <= self._done:
            return mel.new_empty(len(mel), 1, 0)
        with full_precision(mel.device):
            audio = cut_audio(self._generator, mel, noise, self._done - self._first, self._end - end)
        self._done = end
        old = max(end - self._generator.context_frames - self._first, 0)
        # Copies, so that the memory of what is forgotten is free.
        self._mel, self._mel_noise = mel[..., old:].clone(), noise[..., old:].clone()
        self._first += old
        return audio
