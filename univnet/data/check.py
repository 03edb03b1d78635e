"""Which recordings can be trained on: judged on what training hears, repaired where it is certain how, or left out."""

import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Literal

import numpy as np

from univnet.audio import AudioReader, LogMelSpectrogram, MelFormat, shown
from univnet.audio.io import TruncatedAudioError
from univnet.common.processes import reading_threads
from univnet.data.manifest import AudioFile
from univnet.data.mels import Grid, fault_of_values, load_mel, refuse_doubtful

SILENT_PEAK = 1e-4  # −80 dB of full scale: below this a file is taken for silence
FAR = 4.0  # times full scale: beyond this, samples are not too loud but of another scale, or damaged
RATES = (4_000, 768_000)  # Hz; outside, it is the header that is wrong
_OFFSET = 0.01  # of full scale: a larger mean is no accident of the sound
_CANCELLED = 0.1  # the mix has less than this share of its channels' amplitude
_CLIPPED = 0.1  # share of the samples that stay at the peak, where the one before was
_FULL_SCALES = (2**15, 2**23, 2**31)  # of whole numbers of 16, 24 and 32 bits
_STREAMED = 0x7FFF0000  # WAV writers that cannot seek back leave a size near 2³¹ or 2³² in the header
_PER_BYTE = 8192  # no format packs more frames into a byte

Check = Literal["full", "header"]


def check_files(
    files: Sequence[AudioFile],
    check: Check = "full",
    workers: int | None = None,
    mel: LogMelSpectrogram | None = None,
    mel_format: MelFormat | None = None,
) -> tuple[list[AudioFile], dict[str, list[AudioFile]]]:
    """Leave out the files that cannot be trained on, and note what others need; one warning counts each of the two.

    What is left out, and what is repaired, is in the table of docs/data.md. A recording is judged as training hears
    it: as the mean of its channels, without what resampling takes away and with what it adds.

    Args:
        files: from ``scan_folder`` or ``read_manifest``.
        check: "full" decodes every file; "header" only opens it, and so finds what its header and its size tell:
            no silence, no NaN, no scale, no truncated FLAC.
        workers: threads; default: one a processor, at most 16.
        mel: the mel spectrogram in use. With it, recordings are judged at its rate, and so are the mels they name.
        mel_format: of the mels they name; it must be one that converts to ``mel``. Default: as ``mel``.

    Returns:
        The good files in their order, now with ``samples``, ``sample_rate`` and what repairs them, and the others by
        reason.

    Raises:
        ValueError: no file is left; or most mels have statistics that the format cannot have, with what they look
            like.
    """
    grid = None if mel is None else Grid.of(mel, mel_format)
    with ThreadPoolExecutor(workers or reading_threads()) as pool:
        checked = list(
            pool.map(lambda file: check_file(file, check, None if mel is None else mel.sample_rate, grid), files)
        )
    kept: list[AudioFile] = []
    dropped: dict[str, list[AudioFile]] = {}
    repaired: dict[str, list[AudioFile]] = {}
    for file, (result, repairs) in zip(files, checked, strict=True):
        if isinstance(result, AudioFile):
            kept.append(result)
            for repair in repairs:
                repaired.setdefault(repair, []).append(file)
        else:
            dropped.setdefault(result, []).append(file)
    if not kept and files:
        raise ValueError(
            f"None of the {len(files)} audio files can be used: {_counted(dropped)}. Mend or replace them."
        )
    if dropped:
        count = len(files) - len(kept)
        warnings.warn(f"{count} of {len(files)} audio files are left out: {_counted(dropped)}.", stacklevel=2)
    if repaired:
        count = sum(bool(repairs) for _, repairs in checked)
        warnings.warn(f"{count} of {len(files)} audio files are repaired: {_counted(repaired)}.", stacklevel=2)
    if grid is not None:
        refuse_doubtful(kept, grid)
    return kept, dropped


def warn_of_resampling(files: Iterable[AudioFile], sample_rate: int) -> None:
    """Say once how many files are resampled to ``sample_rate`` at every reading, and from which rates."""
    rates = Counter(file.sample_rate for file in files if file.sample_rate != sample_rate)
    if rates:
        listed = ", ".join(f"{count} from {rate} Hz" for rate, count in sorted(rates.items()))
        warnings.warn(
            f"{rates.total()} audio files are resampled to {sample_rate} Hz at every reading ({listed}): "
            "prepare them once for speed. Upsampled files have no sound above half their own rate.",
            stacklevel=2,
        )


def _counted(groups: dict[str, list[AudioFile]]) -> str:
    return "; ".join(f"{len(files)} {what}, for example {shown(files[0].path)}" for what, files in groups.items())


def check_file(
    file: AudioFile, check: Check = "full", sample_rate: int | None = None, grid: Grid | None = None
) -> tuple[AudioFile | str, Sequence[str]]:
    """The file with its length, rate and repairs, and the repairs' names; or the reason against it.

    Args:
        file: to judge.
        check: "full" or "header", as in ``check_files``.
        sample_rate: Hz, at which it will be heard; default: its own.
        grid: of the mel in use, to judge the mel that the file names.
    """
    if not os.path.isfile(file.path):
        return "missing", ()
    if file.mel is not None and not os.path.isfile(file.mel):
        return "without their mel file", ()
    heard = _Heard()
    repairs: list[str] = []
    try:
        with AudioReader(file.path) as audio:
            if reason := _fault_of_header(audio):
                return reason, ()
            file = replace(file, samples=audio.frames, sample_rate=audio.own_rate)
        if check == "full":
            heard.rate = file.sample_rate
            rate = sample_rate or file.sample_rate
            with AudioReader(file.path, rate, see=heard.see) as audio:
                for part in audio.parts():
                    heard.hear(part.numpy()[0], rate)
            result = heard.judge()
            if isinstance(result, str):
                return result, ()
            offset, gain, repairs = result
            file = replace(file, offset=offset, gain=gain)
    except TruncatedAudioError:
        return "truncated", ()
    except (ValueError, OSError):
        return "unreadable", ()
    if check == "full" and grid is not None and file.mel is not None:
        return _check_mel(file, grid) or file, repairs
    return file, repairs


def _check_mel(file: AudioFile, grid: Grid) -> str | None:
    assert file.mel is not None
    try:
        mel = load_mel(file, file.mel, grid)
    except ValueError as error:
        # A shape that does not fit is rather a mistake in the configuration than in a file: the data set refuses it.
        return None if "has the shape" in str(error) else "with an unreadable mel"
    return fault_of_values(mel, grid)


def _fault_of_header(audio: AudioReader) -> str | None:
    if _wav_cut_short(audio.file.extra_info) or audio.frames > _PER_BYTE * os.path.getsize(audio.path):
        return "truncated"
    if audio.frames <= 0:
        return "empty"
    if not RATES[0] <= audio.own_rate <= RATES[1]:
        return "with a sample rate that cannot be meant"
    return None


def _wav_cut_short(log: str) -> bool:
    """Whether a WAV promises more than it holds; libsndfile corrects the length and only tells its log."""
    sizes = re.search(r"^data : (\d+) \(should be (\d+)\)", log, re.MULTILINE)
    return sizes is not None and int(sizes[2]) < int(sizes[1]) < _STREAMED


class _Heard:
    """What is found out about a recording while it is decoded once."""

    def __init__(self) -> None:
        self.count = 0
        self.sum = self.power = self.power_of_channels = 0.0
        self.low, self.high, self.peak_heard = np.inf, -np.inf, 0.0
        self.finite = self.whole = True
        self.peak, self.at_peak = 0.0, 0
        self.rate = 0  # the file's own
        self.ranges: list[np.ndarray] = []  # half of what each hundredth of a second spans: constants count for nothing
        self.ranges_heard: list[np.ndarray] = []

    def see(self, block: np.ndarray) -> None:
        """Take note of what is in the file, (frames, channels)."""
        if not self.finite or not len(block):
            return
        with np.errstate(over="ignore", invalid="ignore"):
            mono = block.mean(axis=1)
        if not np.isfinite(mono).all():
            self.finite = False
            return
        self.count += len(mono)
        self.sum += float(mono.sum(dtype=np.float64))
        self.power += float(np.square(mono, dtype=np.float64).sum())
        self.power_of_channels += float(np.square(block, dtype=np.float64).sum()) / block.shape[1]
        self.low, self.high = min(self.low, float(mono.min())), max(self.high, float(mono.max()))
        self.whole = self.whole and bool((block == np.rint(block)).all())
        peak = max(self.peak, float(np.abs(mono).max()))
        stays = np.minimum(np.abs(mono[1:]), np.abs(mono[:-1])) * (mono[1:] * mono[:-1] > 0) >= 0.999 * peak
        self.at_peak = (self.at_peak if self.peak >= 0.999 * peak else 0) + int(stays.sum())
        self.peak = peak
        self.ranges.append(_ranges(mono, self.rate))

    def hear(self, part: np.ndarray, rate: int) -> None:
        """Take note of what training hears, (samples,)."""
        self.peak_heard = max(self.peak_heard, float(np.abs(part).max(initial=0)))
        self.ranges_heard.append(_ranges(part, rate))

    def judge(self) -> tuple[float, float, list[str]] | str:
        """The offset and gain that the recording needs, and their names; or the reason against it."""
        if not self.finite:
            return "with NaN or infinity"
        offset, gain, repairs = 0.0, 1.0, []
        if self.peak > FAR:
            scale = next((scale for scale in _FULL_SCALES if self.whole and self.peak <= scale), None)
            if scale is None:
                return f"with samples of more than {FAR:g} times full scale"
            gain = 1 / scale
            repairs.append("of whole numbers, divided by their full scale")
        channels = np.sqrt(self.power_of_channels / self.count)
        if gain * channels >= SILENT_PEAK and np.sqrt(self.power / self.count) < _CANCELLED * channels:
            return "with channels that cancel out"
        if _silent(self.ranges, gain) or _silent(self.ranges_heard, gain):
            return "silent"
        if self.at_peak > _CLIPPED * self.count and gain * self.peak > _OFFSET:  # fainter ones have few levels to be at
            return "clipped for more than a tenth of the time"
        mean = self.sum / self.count
        spread = np.sqrt(max(0.0, self.power / self.count - mean**2))
        accident = 4 * spread / np.sqrt(sum(map(len, self.ranges)))  # what the mean of a short sound may be
        if abs(mean) * gain > _OFFSET and abs(mean) > accident:
            offset = float(np.float32(mean))
            repairs.append("with a constant offset, which is taken out")
        peak = gain * max(self.high - offset, offset - self.low, self.peak_heard if not offset else 0.0)
        if peak > 1:
            gain /= peak
            repairs.append("louder than full scale, turned down to it")
        return offset, gain, repairs


def _ranges(mono: np.ndarray, rate: int) -> np.ndarray:
    size = max(1, rate // 100)
    starts = np.arange(0, len(mono), size)
    return (np.maximum.reduceat(mono, starts) - np.minimum.reduceat(mono, starts)) / 2


def _silent(ranges: list[np.ndarray], gain: float) -> bool:
    """Whether next to nothing is heard: less than a twentieth of a second, a click at most."""
    sounds = np.concatenate(ranges) * gain >= SILENT_PEAK
    return int(sounds.sum()) < min(5, max(1, len(sounds) / 10))
