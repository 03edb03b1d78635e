"""Which part of which recording a draw is: what an epoch holds, and the places in it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from univnet.data.manifest import AudioFile

Epoch = Literal["seconds", "files", "speakers"]
EPOCHS = ("seconds", "files", "speakers")
_ELSEWHERE = 1 << 32  # what sets the random numbers of a second attempt apart from all those of first attempts


@dataclass(frozen=True)
class Crop:
    """A place in a recording, whose length may not be known yet.

    Attributes:
        file: index of the recording.
        slot: which of the recording's equal parts the crop begins in.
        slots: their number.
        key: seed of the random numbers.
    """

    file: int
    slot: int
    slots: int
    key: tuple[int, ...]

    def first(self, places: int) -> int:
        """One of ``places`` frames to begin at, each as likely as any other over a recording's slots."""
        rng = np.random.default_rng(self.key)
        if self.slots == 1:
            return int(rng.integers(places))
        return min(int((self.slot + rng.random()) * places / self.slots), places - 1)

    def again(self, attempt: int) -> "Crop":
        """Another place in the same recording."""
        return Crop(self.file, 0, 1, (*self.key, _ELSEWHERE, attempt))


class Crops:
    """The crops of every epoch, by draw number: nothing but the arguments and that number decides.

    Draw number ``epoch · len(crops) + item`` is an item of an epoch. With "seconds" a recording that holds n whole
    segments has n items, one in each of its n equal parts, so that an epoch covers the recordings and each second of
    sound is as likely as any other. With "files" a recording has one item. With "speakers" an epoch has as many items
    as with "seconds", but the speakers take turns, and an item is any place of its speaker's recordings.

    Args:
        files: all checked.
        frames: of each file.
        wanted: frames in a segment.
        epoch: what an epoch counts.
        seed: another seed, other places.
    """

    def __init__(self, files: Sequence[AudioFile], frames: Sequence[int], wanted: int, epoch: Epoch, seed: int) -> None:
        self.seed, self.epoch = seed, epoch
        slots = [1 if epoch == "files" else max(1, count // wanted) for count in frames]
        self._ends = np.cumsum(slots)
        self._speakers: list[np.ndarray] = []  # of each speaker, the items of "seconds"
        if epoch == "speakers":
            names = np.repeat([file.speaker or "" for file in files], slots)
            self._speakers = [np.flatnonzero(names == name) for name in sorted(set(names.tolist()))]

    def __len__(self) -> int:
        return int(self._ends[-1])

    def of(self, draw: int, attempt: int = 0) -> Crop:
        """The crop of a draw number; for attempts above 0, one drawn elsewhere, from all of the epoch."""
        epoch, item = divmod(draw, len(self))
        if attempt:
            key = (self.seed, epoch, item, _ELSEWHERE, attempt)
            return self._crop(int(np.random.default_rng(key).integers(len(self))), (*key, 1))
        if not self._speakers:
            return self._crop(item, (self.seed, epoch))
        turn = self._speakers[draw % len(self._speakers)]
        drawn = np.random.default_rng((self.seed, epoch, item)).integers(len(turn))
        return self._crop(int(turn[drawn]), (self.seed, epoch, item, 1))

    def _crop(self, item: int, key: tuple[int, ...]) -> Crop:
        file = int(np.searchsorted(self._ends, item, side="right"))
        slots = int(self._ends[file] - (self._ends[file - 1] if file else 0))
        slot = item - int(self._ends[file]) + slots
        return Crop(file, slot, slots, (*key, file) if slots == 1 else (*key, file, slot))
