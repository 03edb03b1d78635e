"""How fast segments are read: ours, and the ways of the reference and of Vocos, written for this comparison.

Both read each recording whole for each segment. The reference (mindslab-ai/univnet) also reads the mel-spectrogram of
all of it from a file; Vocos computes mels on the device, as we do, which is not part of this comparison. What they
then do to the segment (noise, level) is left out.
"""

import argparse
import functools
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np
import soundfile as sf
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from univnet.audio import AudioReader, LogMelSpectrogram
from univnet.data import AudioDataModule, scan_folder

_RATE = 24000
_MEL = ".pt"


class Recordings(NamedTuple):
    """So many recordings of so many seconds."""

    amount: int
    seconds: float

    def __str__(self) -> str:
        return f"{self.amount} x {self.seconds:g} s"


def segments(options: argparse.Namespace) -> dict[str, int]:
    """Return how many segments a turn reads, by case: fewer of long recordings, which the others read whole."""
    return {str(each): max(1, options.segments // (8 if each.seconds > 60 else 1)) for each in options.recordings}


def loader(options: argparse.Namespace) -> dict[str, Callable[[], dict[str, Callable[[], object]]]]:
    """Segments in batches, from one process, which is this one without ``--workers``."""
    return {str(each): functools.partial(_contest, options, each) for each in options.recordings}


def _contest(options: argparse.Namespace, recordings: Recordings) -> dict[str, Callable[[], object]]:
    folder = TemporaryDirectory(prefix="univnet-benchmark-", ignore_cleanup_errors=True)  # goes with what uses it
    root, count = Path(folder.name), segments(options)[str(recordings)]
    write_recordings(root, recordings, Path(options.root))
    paths = sorted((root / "wav").glob("*.wav"))

    def ours(kind: str, cache: str | None = None) -> Dataset:
        data = AudioDataModule(
            str(root / kind),
            mel=LogMelSpectrogram(_RATE),
            segment_length=options.segment,
            validation=0,
            check="header",
            cache=cache,
        )
        data.setup()
        assert data.train_dataset is not None
        return data.train_dataset

    def contestant(dataset: Dataset) -> Callable[[], object]:
        rng = np.random.default_rng(0)
        draws = Subset(dataset, rng.integers(len(dataset), size=count).tolist())  # type: ignore[arg-type]
        batches = DataLoader(draws, options.batch, num_workers=options.workers, persistent_workers=options.workers > 0)

        def work(_: object = folder) -> int:
            return sum(len(next(iter(batch.values()))) for batch in batches)

        return work

    return {
        "reference's way": contestant(WholeFiles(paths, options.segment, with_mel=True)),
        "Vocos's way": contestant(WholeFiles(paths, options.segment, with_mel=False)),
        "ours": contestant(ours("wav")),
        "ours, FLAC": contestant(ours("flac")),
        "ours, cache in a folder": contestant(ours("flac", str(root / "cache"))),
        "ours, cache in memory": contestant(ours("flac", "memory")),
    }


class WholeFiles(Dataset[dict[str, Tensor]]):
    """A random segment of each recording, which is read whole; and of its mel, if there is one, which is, too.

    Args:
        paths: WAV files; a mel lies beside each, as ``write_recordings`` leaves it.
        segment: in samples.
        with_mel: as the reference does.
    """

    def __init__(self, paths: list[Path], segment: int, with_mel: bool) -> None:
        self.paths, self.segment, self.with_mel = paths, segment, with_mel

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        path, hop = self.paths[index], 256
        audio = torch.from_numpy(sf.read(path, dtype="float32")[0])[None]
        frames = self.segment // hop
        first = int(torch.randint(audio.shape[1] // hop - frames + 1, ()))
        item = {"audio": audio[:, first * hop :][:, : self.segment]}
        if self.with_mel:
            mel = torch.load(path.with_suffix(_MEL), weights_only=True)
            item["mel"] = mel[:, first : first + frames]
        return item


def write_recordings(folder: Path, recordings: Recordings, speech: Path) -> None:
    """Write the recordings, of repeated speech, as ``wav/*.wav`` with their mels and as ``flac/*.flac``.

    Args:
        folder: an empty one.
        recordings: how many, and how long.
        speech: a folder of recordings.
    """
    unit = np.concatenate(list(_read(speech)))
    mel = LogMelSpectrogram(_RATE)(torch.from_numpy(unit)[None, None])[0].numpy()
    samples = round(recordings.seconds * _RATE)
    frames = np.arange(samples // 256) % mel.shape[1]
    whole = (unit * 32767).astype(np.int16)
    for kind in ("wav", "flac"):
        (folder / kind).mkdir()
    for number in range(recordings.amount):
        start = number * len(whole) // recordings.amount
        audio = np.resize(np.roll(whole, -start), samples)
        sf.write(folder / "wav" / f"{number:04}.wav", audio, _RATE)
        sf.write(folder / "flac" / f"{number:04}.flac", audio, _RATE)
        of_it = torch.from_numpy(mel[:, (frames + start // 256) % mel.shape[1]])
        torch.save(of_it, folder / "wav" / f"{number:04}{_MEL}")


def _read(folder: Path) -> Iterator[np.ndarray]:
    for file in scan_folder(folder, "--root"):
        with AudioReader(file.path, _RATE) as audio:
            yield audio.read(0, audio.length)[0].numpy()
