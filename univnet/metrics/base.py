"""What a speech metric is: a function of generated and real audio, with what a table has to say about it."""

import importlib.util
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Generic, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor
from torchaudio.functional import resample

Audio = Tensor | np.ndarray
T = TypeVar("T")
Function = Callable[[Tensor, Tensor, int], float]


class MissingPackageError(ImportError):
    """The package that a metric is computed by is not installed; the message says how to install it."""


@dataclass(frozen=True)
class Measure:
    """A metric: call it as ``measure(fake, real, sample_rate) -> float``.

    Args:
        name: what it is called in configurations, logs (``val/NAME``), JSON and CSV.
        title: what it is called in tables.
        unit: of its values; empty for a plain number.
        better: whether ``"higher"`` or ``"lower"`` is better.
        perfect: the value of identical audio; ``None`` where the metric does not look at the recording.
        source: definition, implementation, and the sample rate at which it is computed.
        function: computes it from two 1-D float32 tensors of one length, and their rate in Hz.
        package: the module that ``function`` imports, if it is one that may be missing.
        install: what to give to ``pip install`` for it.
        digits: decimals in tables.
    """

    name: str
    title: str
    unit: str
    better: Literal["higher", "lower"]
    perfect: float | None
    source: str
    function: Function
    package: str | None = None
    install: str = "univnet[eval]"
    digits: int = 3

    def __call__(self, fake: Audio, real: Audio, sample_rate: int) -> float:
        """Compare generated audio with the recording.

        Args:
            fake: the generated audio, (samples,), (1, samples) or (1, 1, samples), in [−1, 1].
            real: the recording, likewise; the longer of the two is cut at its end to the length of the shorter.
            sample_rate: of both, in Hz; metrics with a rate of their own resample.

        Returns:
            The value; NaN where it is not defined, as for silence or audio that is too short.

        Raises:
            MissingPackageError: the package that computes it is not installed.
            ValueError: audio of another shape, empty, or not finite.
        """
        self.require()
        fake, real = _signal(fake, "the generated audio"), _signal(real, "the recording")
        samples = min(len(fake), len(real))
        with torch.no_grad(), torch.autocast(fake.device.type, enabled=False):
            return float(self.function(fake[:samples], real[:samples].to(fake.device), sample_rate))

    @property
    def missing(self) -> str | None:
        """Return why it cannot be computed here and what helps, or ``None`` where it can."""
        if self.package is None or importlib.util.find_spec(self.package):
            return None
        return f"{self.name} needs the package {self.package}: pip install '{self.install}'"

    def require(self) -> None:
        """Raise MissingPackageError where the package that computes it is not installed."""
        if missing := self.missing:
            raise MissingPackageError(missing)


def measure(name: str, **about: Any) -> Callable[[Function], Measure]:
    """Make a ``Measure`` of the function below; ``about`` are the measure's other arguments."""
    return lambda function: Measure(name=name, function=function, **about)


def at_rate(audio: Tensor, sample_rate: int, wanted: int) -> Tensor:
    """Return ``audio`` resampled to ``wanted`` Hz, by torchaudio."""
    return audio if sample_rate == wanted else resample(audio, sample_rate, wanted)


class Remembered(Generic[T]):
    """The results of a costly analysis of single signals; those of a recording serve for every contestant.

    Args:
        size: how many results are kept; the oldest go first.
    """

    def __init__(self, size: int = 64) -> None:
        self.size = size
        self._results: OrderedDict[Hashable, T] = OrderedDict()

    def get(self, audio: Tensor, settings: Hashable, analyse: Callable[[], T]) -> T:
        """Return the result for ``audio`` under ``settings``, analysed if it is a new one."""
        key = (blake2b(audio.cpu().numpy().tobytes(), digest_size=16).digest(), settings)
        if key not in self._results:
            self._results[key] = analyse()
            while len(self._results) > self.size:
                self._results.popitem(last=False)
        return self._results[key]


def _signal(audio: Audio, what: str) -> Tensor:
    signal = torch.as_tensor(audio)
    if signal.ndim == 0 or signal.numel() != signal.shape[-1]:
        raise ValueError(f"{what} must have one channel of shape (samples,), got {tuple(signal.shape)}")
    signal = signal.detach().reshape(-1).float()
    if not len(signal):
        raise ValueError(f"{what} is empty")
    if not signal.isfinite().all():
        raise ValueError(f"{what} holds NaN or infinity")
    return signal
