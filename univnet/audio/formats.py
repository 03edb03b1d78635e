"""Log-mel-spectrograms of other software: what differs from ours, and the conversion where it is exact.

How a mel was made is told by a ``MelFormat``. Its logarithm, floor, gain, filter normalization, framing and
statistics can be undone exactly; its bands, sizes and rate cannot.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import melscale_fbanks

from univnet.audio.mel import LogMelSpectrogram

_UNITS = {"natural": 1.0, "log2": math.log(2), "log10": math.log(10), "db": math.log(10) / 20}  # in natural logarithms
_WORDS = ("log", "floor_by", "filter_norm", "mel_scale")  # arguments that are not numbers
_LOUDEST = 3.0  # natural log-mel of audio in [−1, 1], about
_SIZES = ("sample_rate", "n_fft", "hop_length", "win_length", "n_mels", "f_min", "f_max")


@dataclass(frozen=True)
class MelFormat:
    """How some software makes log-mel-spectrograms.

    A stored value is ``(log(floored(gain · mel)) − mean) / std``, where ``mel`` is the sum of a band's magnitudes
    (``power=1``) or powers (``power=2``), each times its filter.

    Args:
        name: what it is called.
        sample_rate: Hz.
        n_fft: FFT size in samples.
        hop_length: samples from one frame to the next.
        win_length: of the Hann window, in samples; default: ``n_fft``.
        n_mels: number of bands.
        f_min: lower edge of the lowest band, Hz.
        f_max: upper edge of the highest band, Hz; default: half the sample rate.
        log: ``"natural"``, ``"log2"``, ``"log10"`` or ``"db"`` (20·log10 of magnitudes, 10·log10 of powers).
        floor: smallest value that the logarithm is taken of.
        floor_by: ``"clamp"`` for max(mel, floor), ``"add"`` for mel + floor.
        power: 1 for bands of magnitudes, 2 for bands of powers.
        gain: of the audio before the analysis, 32768 where it is in 16-bit integers.
        filter_norm: ``"slaney"`` for filters of equal area, ``None`` for filters of equal height.
        mel_scale: ``"slaney"`` or ``"htk"``.
        centre: frame t is centred at sample t·hop (as torch.stft and librosa do by default), not at (t + ½)·hop.
        frames_first: stored as (frames, n_mels).
        mean: taken away from the logarithms, one number or one per band.
        std: what they are divided by after that.
        source: where this is written down.

    Raises:
        ValueError: names every argument that does not fit.
    """

    name: str
    sample_rate: int = 24000
    n_fft: int = 1024
    hop_length: int = 256
    win_length: int | None = None
    n_mels: int = 100
    f_min: float = 0.0
    f_max: float | None = None
    log: Literal["natural", "log2", "log10", "db"] = "natural"
    floor: float = 1e-5
    floor_by: Literal["clamp", "add"] = "clamp"
    power: Literal[1, 2] = 1
    gain: float = 1.0
    filter_norm: Literal["slaney"] | None = "slaney"
    mel_scale: Literal["slaney", "htk"] = "slaney"
    centre: bool = False
    frames_first: bool = False
    mean: float | Sequence[float] = 0.0
    std: float | Sequence[float] = 1.0
    source: str = ""

    def __post_init__(self) -> None:
        """Fill in what follows from the rest, and check it."""
        if self.win_length is None:
            object.__setattr__(self, "win_length", self.n_fft)
        if self.f_max is None:
            object.__setattr__(self, "f_max", self.sample_rate / 2)
        rules = {
            f"log must be one of {', '.join(_UNITS)}, got {self.log!r}": self.log in _UNITS,
            f"floor_by must be 'clamp' or 'add', got {self.floor_by!r}": self.floor_by in ("clamp", "add"),
            f"power must be 1 or 2, got {self.power!r}": self.power in (1, 2),
            f"filter_norm must be 'slaney' or None, got {self.filter_norm!r}": self.filter_norm in ("slaney", None),
            f"mel_scale must be 'slaney' or 'htk', got {self.mel_scale!r}": self.mel_scale in ("slaney", "htk"),
            f"floor must not be negative, got {self.floor}": self.floor >= 0,
            f"gain must be positive, got {self.gain}": self.gain > 0,
        }
        for name in ("mean", "std"):
            count = np.size(getattr(self, name))
            rules[f"{name} must be one number or {self.n_mels}, one per band; got {count}"] = count in (1, self.n_mels)
        rules["std must be positive"] = bool(np.all(np.asarray(self.std) > 0))
        if mistakes := [rule for rule, kept in rules.items() if not kept]:
            raise ValueError(f"the mel format {self.name}: {'; '.join(mistakes)}")

    @classmethod
    def named(cls, text: str) -> Self:
        """Return the format that ``text`` names, such as ``hifigan`` or ``hifigan,sample_rate=16000,f_max=8000``.

        After the name, ``key=value`` sets an argument, and ``stats=FILE.npy`` mean and standard deviation from an
        array (2, n_mels), as ParallelWaveGAN and ESPnet write them.

        Raises:
            ValueError: there is no such format or argument, or a value does not fit.
            FileNotFoundError: there is no such file of statistics.
        """
        name, *settings = (part.strip() for part in text.split(","))
        if name not in FORMATS:
            raise ValueError(f"there is no mel format {name!r}; give one of {', '.join(FORMATS)}")
        changes: dict[str, Any] = {}
        known = [field.name for field in fields(cls) if field.name not in ("name", "source")]
        for setting in settings:
            key, equals, value = setting.partition("=")
            if key == "stats":
                changes["mean"], changes["std"] = _statistics(Path(value))
            elif not equals or key not in known:
                raise ValueError(f"{setting!r} in the mel format must be KEY=VALUE, KEY one of {', '.join(known)}")
            else:
                changes[key] = _value(key, value)
        chosen = FORMATS[name]
        if "n_fft" in changes:
            changes = {"win_length": None, **changes}
        if "sample_rate" in changes and chosen.f_max == chosen.sample_rate / 2:
            changes = {"f_max": None, **changes}
        return replace(chosen, **changes)  # type: ignore[return-value]

    def differences(self, mel: LogMelSpectrogram) -> list[str]:
        """Return what in this format cannot be converted to ``mel``, a phrase each; empty where all can."""
        found = []
        for name in _SIZES:
            theirs, ours = getattr(self, name), getattr(mel, name)
            if theirs != ours:
                found.append(f"{name} is {theirs:g}, not {ours:g}")
        if self.power != 1:
            found.append("its bands sum powers, not magnitudes")
        if self.mel_scale != "slaney":
            found.append(f"its mel scale is {self.mel_scale}, not slaney")
        if not found and self.floor_by == "clamp":
            lowest = self.floor / self.gain * float(self._band_factors().max())
            if lowest > mel.floor * (1 + 1e-6):
                found.append(f"its floor of {lowest:.2g} hides what is above this vocoder's {mel.floor:g}")
        return found

    def convert(self, values: Tensor, mel: LogMelSpectrogram) -> Tensor:
        """Return ``values`` in this format as the log-mels that ``mel`` makes.

        Exact up to rounding, but for two things. Our magnitude is √(re² + im² + 1e-9): on speech our values are larger
        by up to 0.04 beside the floor and by less than 1e-3 above −8. And a centred format's frame t is analysed half
        a hop earlier, so that the audio comes ``delay`` samples late.

        Args:
            values: (…, n_mels, frames), or (…, frames, n_mels) where ``frames_first``.
            mel: the vocoder's own.

        Returns:
            (…, n_mels, frames), in the type and on the device of ``values``.

        Raises:
            ValueError: names all that differs and cannot be converted, or another shape.
        """
        if differ := self.differences(mel):
            raise ValueError(f"mels of the format {self.name} do not fit this vocoder: {'; '.join(differ)}")
        if self.frames_first:
            values = values.transpose(-1, -2)
        if values.ndim < 2 or values.shape[-2] != self.n_mels:
            order = "(frames, n_mels)" if self.frames_first else "(n_mels, frames)"
            raise ValueError(
                f"a mel of the format {self.name} has the shape {order} with {self.n_mels} bands, got "
                f"{tuple(values.transpose(-1, -2).shape if self.frames_first else values.shape)}"
            )
        return self.natural_logs(values, math.log(mel.floor))

    def natural_logs(self, values: Tensor, lowest: float) -> Tensor:
        """Return what ``convert`` does, for a format that is known to fit.

        Args:
            values: (…, n_mels, frames).
            lowest: the log-mel of no sound, which no value falls below.

        Returns:
            The same shape, in the type and on the device of ``values``.
        """
        mean, std = (
            torch.as_tensor(given, dtype=torch.float64, device=values.device).reshape(-1, 1)
            for given in (self.mean, self.std)
        )
        logs = (values.double() * std + mean) * _UNITS[self.log]
        factors = (self._band_factors() / self.gain).to(values.device)
        if self.floor_by == "add":
            logs = torch.expm1(logs - math.log(self.floor)).mul(self.floor).clamp(min=0).log() if self.floor else logs
        return (logs + factors.log()).clamp(min=lowest).to(values.dtype)

    def delay(self) -> int:
        """Return how many samples late the audio of a converted mel comes: half a hop where frames are centred."""
        return self.hop_length // 2 if self.centre else 0

    def _band_factors(self) -> Tensor:
        """Return what a band's sum is multiplied by to have Slaney's filter normalization, (n_mels, 1)."""
        if self.filter_norm == "slaney":
            return torch.ones(self.n_mels, 1, dtype=torch.float64)
        assert self.f_max is not None
        return _slaney_factors(self.n_fft, self.f_min, self.f_max, self.n_mels, self.sample_rate)


@cache
def _slaney_factors(n_fft: int, f_min: float, f_max: float, n_mels: int, sample_rate: int) -> Tensor:
    slaney, height = (
        melscale_fbanks(n_fft // 2 + 1, f_min, f_max, n_mels, sample_rate, norm, "slaney").double().amax(0)
        for norm in ("slaney", None)
    )
    return (slaney / height.clamp(min=1e-30)).unsqueeze(1)


def doubt(mel: Tensor, floor: float = 1e-5) -> str | None:
    """Say why ``mel`` cannot be natural-log magnitudes of audio in [−1, 1], or return ``None`` where it can.

    Such values lie between log(floor) and about 3. The check looks at the 1st and the 99th percentile, because a
    model's predictions may miss the bounds a little; it names the formats whose values look like these.

    Args:
        mel: the values, of any shape.
        floor: of the vocoder's mel.
    """
    low, high = _range(mel)
    likely = _likely(low, high, floor)
    if likely is None:
        return None
    return (
        f"its values from {low:.3g} to {high:.3g} (1st and 99th percentile) cannot be natural-log magnitudes, which "
        f"lie between {math.log(floor):.3g} and {_LOUDEST:g}: they look like {likely}"
    )


def likely_format(mel: Tensor, floor: float = 1e-5) -> str | None:
    """Return what ``doubt`` says that the values of ``mel`` look like, or ``None`` where they can be ours."""
    return _likely(*_range(mel), floor)


def _range(mel: Tensor) -> tuple[float, float]:
    values = mel.detach().float().flatten()
    if values.numel() > 1 << 20:
        values = values[:: values.numel() >> 20]
    low, high = (float(torch.quantile(values, share)) for share in (0.01, 0.99))
    return low, high


def _likely(low: float, high: float, floor: float) -> str | None:
    least = math.log(floor) - 1
    if low < least:
        if low < 3 * least or high > 5:
            return "decibels ('librosa-power-db', 'librosa-db')"
        return "logarithms of powers, or of magnitudes with a lower floor ('vocos')"
    if high > 15:
        return "decibels, or magnitudes of which no logarithm was taken"
    if high > _LOUDEST:
        return "normalized values (set mean and std), or magnitudes of which no logarithm was taken"
    if low >= 0:
        return "normalized to [0, 1] (set mean and std), or magnitudes of which no logarithm was taken"
    return "normalized to [-1, 1] (set mean and std)" if low >= -1.2 else None


def _value(key: str, text: str) -> Any:
    if text in ("None", "null"):
        return None
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    if key in _WORDS:
        return text
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{key}={text} in a mel format must be a number") from None
    return int(number) if number == int(number) and key not in ("f_min", "f_max") else number


def _statistics(path: Path) -> tuple[list[float], list[float]]:
    if not path.is_file():
        raise FileNotFoundError(f"there is no file of statistics {path}")
    try:
        stats = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"{path} is not a readable .npy file of numbers") from error
    if not isinstance(stats, np.ndarray) or stats.ndim != 2 or len(stats) != 2:
        raise ValueError(f"{path} must hold an array (2, n_mels): the bands' means, then their standard deviations")
    mean, std = stats.tolist()
    return mean, std


_LIBROSA: dict[str, Any] = {"sample_rate": 22050, "n_fft": 2048, "hop_length": 512, "n_mels": 128, "centre": True}
_LJSPEECH: dict[str, Any] = {"sample_rate": 22050, "n_mels": 80}

FORMATS: dict[str, MelFormat] = {
    each.name: each
    for each in (
        MelFormat("univnet", source="maum-ai/univnet, utils/stft.py and config/default_c32.yaml"),
        MelFormat("hifigan", **_LJSPEECH, f_max=8000.0, source="jik876/hifi-gan, meldataset.py and config_v1.json"),
        MelFormat("bigvgan", source="NVIDIA/BigVGAN, meldataset.py and bigvgan_24khz_100band.json"),
        MelFormat(
            "tacotron2", **_LJSPEECH, f_max=8000.0, centre=True, source="NVIDIA/tacotron2, layers.py and stft.py"
        ),
        MelFormat(
            "vocos",
            floor=1e-7,
            filter_norm=None,
            mel_scale="htk",
            centre=True,
            source="gemelo-ai/vocos, feature_extractors.py and modules.py (safe_log)",
        ),
        MelFormat(
            "parallel-wavegan",
            **_LJSPEECH,
            f_min=80.0,
            f_max=7600.0,
            log="log10",
            floor=1e-10,
            centre=True,
            frames_first=True,
            source="kan-bayashi/ParallelWaveGAN, bin/preprocess.py; espnet/espnet, log_mel_fbank.py; stats=FILE.npy",
        ),
        MelFormat(
            "speecht5",
            sample_rate=16000,
            n_mels=80,
            f_min=80.0,
            f_max=7600.0,
            log="log10",
            floor=1e-10,
            centre=True,
            frames_first=True,
            source="transformers, feature_extraction_speecht5.py",
        ),
        MelFormat(
            "librosa-db", **_LIBROSA, log="db", source="librosa.amplitude_to_db(melspectrogram(power=1), top_db=None)"
        ),
        MelFormat(
            "librosa-power-db",
            **_LIBROSA,
            log="db",
            floor=1e-10,
            power=2,
            source="librosa.power_to_db(melspectrogram())",
        ),
    )
}
