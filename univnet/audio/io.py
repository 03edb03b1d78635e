"""Reading parts of audio files at the rate that is wanted.

soundfile is imported when a file is opened: training on tensors, and all that is measured on a GPU, do without it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType

import numpy as np
from torch import Tensor

from univnet.audio.resampling import Resampling, resampled_length

# What libsndfile decodes, by the suffixes that it goes under.
_SUFFIXES = "wav wave flac ogg oga opus mp3 aiff aif aifc au snd caf w64 rf64 sph"
RECORDINGS = frozenset(f".{suffix}" for suffix in _SUFFIXES.split())
ReadSegment = Callable[..., Tensor]  # read_segment, or what takes its place
_INEXACT_SEEK = ("OGG", "MP3")  # libsndfile 1.2.2 lands up to some hundred samples off in Vorbis, and unprimed in Opus
_VALUES = 1 << 20  # decoded at a time, over all channels
_PART = 1 << 20  # samples in a part of a whole file


class UnreadableAudioError(ValueError):
    """A file that is no audio, or of a kind that libsndfile does not decode."""


class TruncatedAudioError(ValueError):
    """A file that ends, or cannot be decoded any further, before its header says."""


class AudioReader:
    """An audio file, open for reading any part of it as mono float32 at one sample rate.

    Parts equal those of the whole file resampled with ``torchaudio.functional.resample`` (to 1e-6; for a pair of rates
    without a small ratio, of float64 audio: there torchaudio's float32 errs by 1e-4). Several channels are averaged.
    Reading on from where the last part ended decodes nothing twice. No more than a part is held in memory.

    Args:
        path: WAV, FLAC, OGG (Vorbis, Opus), MP3, AIFF, or what else libsndfile reads.
        sample_rate: of what is read, in Hz; default: the file's own.
        offset: is subtracted from every sample.
        gain: then multiplies every sample.
        own_rate: Hz, to take the file's samples to be at, in place of the rate in its header.
        see: is called with all that is decoded, (frames, channels), as it is in the file.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableAudioError: the file is not audio that libsndfile reads.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        sample_rate: int | None = None,
        offset: float = 0.0,
        gain: float = 1.0,
        own_rate: int | None = None,
        see: Callable[[np.ndarray], None] | None = None,
    ) -> None:
        self.path = Path(path)
        self._offset, self._gain, self._see = offset, gain, see
        self._open()
        self.frames, self.own_rate = self.file.frames, own_rate or self.file.samplerate
        self.sample_rate = sample_rate or self.own_rate
        self.length = resampled_length(self.frames, self.own_rate, self.sample_rate)
        self._resampling = Resampling(self.own_rate, self.sample_rate)

    def _open(self) -> None:
        import soundfile as sf

        if not os.path.isfile(self.path):
            raise FileNotFoundError(f"There is no audio file {shown(self.path)}.")
        try:
            self.file = sf.SoundFile(os.fsencode(self.path))  # bytes, for names that are not UTF-8
        except (sf.SoundFileError, TypeError) as error:  # TypeError: audio without a header
            why = getattr(error, "error_string", "") or "it has no header that names its format"
            raise UnreadableAudioError(f"{shown(self.path)} is not readable audio: {why.rstrip('.')}.") from error
        seeks = self.file.seekable() and self.file.format not in _INEXACT_SEEK
        self._seeks = seeks and not self.file.subtype.startswith("MPEG")
        self._at = 0  # the frame that is decoded next
        self._last = (0, np.zeros(0, np.float32))  # what was decoded last, and where it begins

    def __enter__(self) -> "AudioReader":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.file.close()

    def read(self, start: int, length: int) -> Tensor:
        """Samples start … start + length, as (1, length).

        A format in which libsndfile does not seek exactly is decoded from its first sample on: convert a large corpus
        of such files to FLAC.

        Raises:
            TruncatedAudioError: the file ends before its header says.
            ValueError: the file has no such samples.
        """
        check_place(self.path, start, length, self.length, self.sample_rate)
        return self._resampling.part(self._own, self.frames, start, length)

    def parts(self) -> Iterator[Tensor]:
        """The whole file, in parts (1, samples) of about a million samples."""
        for start in range(0, self.length, _PART):
            yield self.read(start, min(_PART, self.length - start))

    def _own(self, start: int, stop: int) -> np.ndarray:
        """Frames start … stop at the file's own rate."""
        begin, last = self._last
        kept = last[start - begin : stop - begin] if begin <= start <= self._at else last[:0]
        if len(kept) < stop - start:
            if not len(kept):
                self._go_to(start)
            kept = np.concatenate([kept, *self._decoded(stop - start - len(kept))])
            self._last = (start, kept)
        return kept

    def _go_to(self, frame: int) -> None:
        import soundfile as sf

        if self._at == frame:
            return
        try:
            if self._seeks:
                self._at = self.file.seek(frame)
                return
            if frame < self._at:
                self.file.close()
                self._open()
            for _ in self._decoded(frame - self._at):
                pass
        except sf.SoundFileError as error:
            raise self._truncated() from error

    def _decoded(self, frames: int) -> Iterator[np.ndarray]:
        """The next ``frames`` frames as mono, some at a time."""
        import soundfile as sf

        stop, some = self._at + frames, max(1, _VALUES // self.file.channels)
        while self._at < stop:
            wanted = min(some, stop - self._at)
            try:
                block = self.file.read(wanted, dtype="float32", always_2d=True)
            except sf.SoundFileError as error:
                raise self._truncated() from error
            self._at += len(block)
            if self._see is not None:
                self._see(block)
            if len(block) < wanted:
                raise self._truncated()
            yield self._mono(block)

    def _mono(self, block: np.ndarray) -> np.ndarray:
        with np.errstate(over="ignore", invalid="ignore"):  # values that explode are for the caller to judge
            return repaired(block.mean(axis=1), self._offset, self._gain)

    def _truncated(self) -> TruncatedAudioError:
        return TruncatedAudioError(
            f"{shown(self.path)} cannot be read beyond frame {self._at} of {self.frames}: it is truncated or damaged."
        )


def audio_length(path: str | os.PathLike[str], sample_rate: int) -> int:
    """Length of a file in samples at ``sample_rate``, from its header.

    Raises:
        FileNotFoundError: there is no such file.
        UnreadableAudioError: the file is not audio that libsndfile reads.
    """
    with AudioReader(path, sample_rate) as audio:
        return audio.length


def read_segment(
    path: str | os.PathLike[str],
    start: int,
    length: int,
    sample_rate: int,
    offset: float = 0.0,
    gain: float = 1.0,
    own_rate: int | None = None,
) -> Tensor:
    """Part of a file as mono float32 at ``sample_rate``, reading no more than that part (see ``AudioReader``).

    Args:
        path: WAV, FLAC, OGG, or what else libsndfile reads.
        start: first sample, counted at ``sample_rate``.
        length: number of samples at ``sample_rate``.
        sample_rate: Hz, of the result.
        offset: is subtracted from every sample.
        gain: then multiplies every sample.
        own_rate: Hz, to take the file's samples to be at, in place of the rate in its header.

    Returns:
        (1, length)

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is unreadable, or has no such samples.
    """
    with AudioReader(path, sample_rate, offset, gain, own_rate) as audio:
        return audio.read(start, length)


def check_place(path: str | os.PathLike[str], start: int, length: int, samples: int, sample_rate: int) -> None:
    """Refuse to read what a file of ``samples`` at ``sample_rate`` has not.

    Raises:
        ValueError: it has no samples start … start + length.
    """
    if start < 0 or length < 0 or start + length > samples:
        raise ValueError(
            f"{shown(path)} has {samples} samples at {sample_rate} Hz: cannot read {length} from sample {start} on."
        )


def repaired(mono: np.ndarray, offset: float, gain: float) -> np.ndarray:
    """Samples without a constant, and then multiplied; in float32."""
    return (mono - np.float32(offset)) * np.float32(gain) if offset or gain != 1 else mono


def shown(path: str | os.PathLike[str]) -> str:
    """A path as it can be printed, logged and saved: bytes of a name that are not UTF-8 as ``\\\\xe9``."""
    return os.fsencode(path).decode(errors="backslashreplace")
