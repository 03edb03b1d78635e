"""Changing what is heard from draw to draw: level, polarity, and speed with pitch."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from univnet.common.mistakes import Mistakes
from univnet.data.crops import Crop
from univnet.data.manifest import AudioFile

_KEY = 1 << 33  # sets the random numbers of augmentation apart from those of the places


class Augment:
    """Random changes of training segments. What is changed how depends on the draw alone, as the place does.

    Mels are taken of the changed audio, neighbourhood included, so that they are exact.

    Args:
        gain: decibels (least, most), drawn evenly between. What would be louder than full scale is turned down to it.
        polarity: turn every second segment, on average, upside down.
        speeds: factors of which one is drawn, such as [0.9, 1.0, 1.1]: as a record player does, by resampling, so that
            pitch and formants go with the speed. Each is rounded so that it is a ratio of two sample rates in Hz.

    Raises:
        ValueError: names every argument that does not fit.
    """

    def __init__(
        self, gain: tuple[float, float] = (0.0, 0.0), polarity: bool = False, speeds: Sequence[float] = (1.0,)
    ) -> None:
        mistakes = Mistakes(self)
        right = len(gain) == 2 and gain[0] <= gain[1]
        mistakes.unless(right, f"gain must be two numbers of dB, the smaller first, got {gain}")
        right = len(speeds) > 0 and all(0.5 <= speed <= 2 for speed in speeds)
        mistakes.unless(right, f"speeds must be factors in 0.5…2, got {speeds}")
        mistakes.raise_all()
        self.gain, self.polarity, self.speeds = gain, polarity, tuple(speeds)

    @property
    def keeps_mels(self) -> bool:
        """Whether a mel that was given with the recording stays true."""
        return tuple(self.gain) == (0, 0) and set(self.speeds) == {1.0}

    def sped(self, file: AudioFile, crop: Crop) -> AudioFile:
        """The recording of the crop at the speed of the draw: as if it had been made at another sample rate."""
        speed = self.speeds[int(self._rng(crop, 0).integers(len(self.speeds)))]
        return replace(file, sample_rate=max(1, round(file.sample_rate * speed)))

    def levelled(self, audio: Tensor, crop: Crop) -> Tensor:
        """The audio (1, samples) at the level, and with the polarity, of the draw."""
        rng = self._rng(crop, 1)
        factor = 10 ** (rng.uniform(*self.gain) / 20)
        if factor > 1 and (peak := float(audio.abs().max())) * factor > 1:
            factor = max(1.0, 1 / peak) if peak else 1.0
        return audio * (-factor if self.polarity and rng.random() < 0.5 else factor)

    @staticmethod
    def _rng(crop: Crop, what: int) -> np.random.Generator:
        return np.random.default_rng((*crop.key, _KEY, what))
