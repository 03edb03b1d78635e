"""One recording: judged, repaired, resampled, trimmed, levelled, measured, and written."""

import multiprocessing
import os
import threading
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import soundfile as sf
import torch
from torch import Tensor

from univnet.audio.measures import bandwidth, loudness
from univnet.common.files import written_whole
from univnet.data.check import check_file
from univnet.data.corpora import Source

Normalize = Literal["none", "peak", "loudness"]
_CEILING = 0.99  # no sample is louder, whatever the loudness asked for
_MARGIN = 0.05  # seconds of what is trimmed that are kept


@dataclass(frozen=True)
class Settings:
    """What is done to every recording.

    Args:
        sample_rate: Hz, of what is written.
        format: "flac" or "wav", both of 16 bits.
        trim: cut what lies at the ends more than so many dB below the loudest 10 ms, but for 50 ms; None: keep it.
        normalize: "peak" or "loudness" (ITU-R BS.1770-4) brings each recording to ``level``; "none" keeps its own.
        level: dB of full scale, or LUFS. A loudness that would push a peak beyond 0.99 is not reached.
        min_seconds: shorter recordings are dropped.
        min_bandwidth: recordings without sound up to so many Hz are dropped; None: they are only named.
    """

    sample_rate: int = 24000
    format: Literal["flac", "wav"] = "flac"
    trim: float | None = None
    normalize: Normalize = "none"
    level: float = -3.0
    min_seconds: float = 0.0
    min_bandwidth: float | None = None

    @property
    def digest(self) -> str:
        """What tells these settings from others."""
        return sha256(repr(sorted(asdict(self).items())).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Record:
    """What became of one recording.

    Attributes:
        name: of the source.
        stamp: tells the source, as it was, and the settings: if they are the same, so is the rest.
        dropped: why nothing was written, or "".
        path: what was written, relative to the output's folder; the following are its own.
        frames: number of samples.
        peak: of full scale.
        loudness: LUFS; None for less than 0.4 s.
        bandwidth: Hz.
        source_rate: the source's own sample rate.
        repairs: what the check found and repaired.
        sha256: of the file.
        size: of the file, in bytes.
    """

    name: str
    stamp: str
    dropped: str = ""
    path: str = ""
    frames: int = 0
    peak: float = 0.0
    loudness: float | None = None
    bandwidth: float = 0.0
    source_rate: int = 0
    repairs: tuple[str, ...] = ()
    sha256: str = ""
    size: int = 0


def stamp_of(source: Source, settings: Settings, target: str) -> str:
    """What tells a source as it is now, what is done to it, and where it is written."""
    try:
        status = os.stat(source.file.path)
    except OSError:
        return f"{settings.digest}:missing"
    return f"{settings.digest}:{status.st_size}:{status.st_mtime_ns}:{target}"


def prepare_recording(source: Source, settings: Settings, folder: Path, target: str) -> Record:
    """Write what becomes of a recording to ``folder / target``; say what that is, or why nothing is written."""
    stamp = stamp_of(source, settings, target)
    checked, repairs = check_file(source.file, "full", settings.sample_rate)
    if isinstance(checked, str):
        return Record(source.file.name, stamp, checked)
    audio = checked.read(0, checked.length(settings.sample_rate), settings.sample_rate)
    if settings.trim is not None:
        audio = trimmed(audio, settings.sample_rate, settings.trim)
    if audio.shape[1] < settings.min_seconds * settings.sample_rate:
        return Record(source.file.name, stamp, f"shorter than {settings.min_seconds:g} s")
    reaches = bandwidth(audio, settings.sample_rate)
    if settings.min_bandwidth is not None and reaches < settings.min_bandwidth:
        return Record(source.file.name, stamp, f"without sound up to {settings.min_bandwidth:g} Hz")
    audio = (audio * gain(audio, settings)).clamp(-1, 1)
    path = folder / target
    with written_whole(path) as unfinished:
        # libsndfile takes bytes, for names that are not UTF-8
        sf.write(os.fsencode(unfinished), audio[0].numpy(), settings.sample_rate, "PCM_16", format=settings.format)
    data = path.read_bytes()
    return Record(
        source.file.name,
        stamp,
        path=target,
        frames=audio.shape[1],
        peak=round(float(audio.abs().max()), 5),
        loudness=None if (value := loudness(audio, settings.sample_rate)) is None else round(value, 2),
        bandwidth=round(reaches, 1),
        source_rate=checked.sample_rate,
        repairs=tuple(repairs),
        sha256=sha256(data).hexdigest(),
        size=len(data),
    )


def trimmed(audio: Tensor, sample_rate: int, below: float) -> Tensor:
    """Without what lies at its ends more than ``below`` dB under the loudest 10 ms, but for 50 ms."""
    size = max(1, sample_rate // 100)
    starts = np.arange(0, audio.shape[1], size)
    power = np.add.reduceat(np.square(audio[0].numpy(), dtype=np.float64), starts)
    loud = np.flatnonzero(power >= power.max() * 10 ** (-abs(below) / 10))
    margin = int(_MARGIN * sample_rate)
    return audio[:, max(0, int(loud[0]) * size - margin) : (int(loud[-1]) + 1) * size + margin]


def gain(audio: Tensor, settings: Settings) -> float:
    """What to multiply a recording by."""
    peak = float(audio.abs().max())
    if settings.normalize == "none" or not peak:
        return 1.0
    if settings.normalize == "peak":
        return float(10 ** (settings.level / 20)) / peak
    own = loudness(audio, settings.sample_rate)
    if own is None:
        return 1.0
    return min(float(10 ** ((settings.level - own) / 20)), _CEILING / peak)


def begin_worker() -> None:
    """Let each of many processes use one core, and end when the one that started it is killed."""
    torch.set_num_threads(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    if (parent := multiprocessing.parent_process()) is not None:
        parent.join()
        os._exit(1)
