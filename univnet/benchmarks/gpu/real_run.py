"""Part (g): a real run on speech, with a logger, validation and loader workers, for a given time."""

import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from univnet.benchmarks.gpu.correctness import quiet_trainer
from univnet.benchmarks.gpu.report import ROOT
from univnet.benchmarks.gpu.scale import Row, Scale
from univnet.callbacks import AudioThroughput
from univnet.data import AudioDataModule
from univnet.module import UnivNet


def rows(scale: Scale) -> Iterator[Row]:
    """Yield speed, how long the loader was waited for, and the loss at both ends."""
    module, watch = scale.module(scale.channels[0]), _Watch()
    speech = find_spec("soundfile") is not None
    batch = scale.batch if scale.cuda else 2
    data: dict[str, Any]
    if speech:
        size: dict[str, Any] = {
            "segment_length": scale.segment,
            "batch_size": batch,
            "num_workers": 4 if scale.cuda else 0,
        }
        root = str(ROOT / "data/demo")
        data = {"datamodule": AudioDataModule(root, mel=module.mel, validation=2, check="header", **size)}
    else:
        yield {"note": "soundfile is not installed, so the run is on noise: install soundfile, or carry its wheel"}
        data = {"train_dataloaders": DataLoader(_Noise(scale, module), batch_size=batch, num_workers=2 * scale.cuda)}
    with tempfile.TemporaryDirectory() as folder:
        trainer = quiet_trainer(
            scale,
            max_time=timedelta(seconds=scale.train_seconds),
            max_epochs=-1,
            precision="bf16-mixed",
            logger=CSVLogger(folder),
            log_every_n_steps=10 if scale.cuda else 1,
            callbacks=[AudioThroughput(), watch],
        )
        trainer.fit(module, **data)
        logged = Path(trainer.log_dir, "metrics.csv").is_file() if trainer.log_dir else False
    seconds = watch.seconds()
    yield {
        "data": "speech" if speech else "noise",
        "updates": trainer.global_step,
        "updates/s": watch.updates / seconds,
        "audio s/s": watch.updates * batch * scale.segment / module.sample_rate / seconds,
        "loader wait": watch.waited / seconds,
        "STFT loss, first": watch.losses[0],
        "STFT loss, last": watch.losses[-1],
        "right": logged and trainer.global_step > 0,
    }


class _Watch(Callback):
    """Times the whole after the first updates, and what lies between a step's end and the next one's start."""

    WARM = 1

    def __init__(self) -> None:
        self.updates, self.waited = 0, 0.0
        self.losses: list[float] = []
        self._start = self._last = 0.0

    def on_fetch_start(self, *_: Any) -> None:
        """The loader is asked."""
        self._asked = time.perf_counter()

    def on_train_batch_start(self, *_: Any) -> None:
        """It has answered, and the batch is on the device."""
        if self._start:
            self.waited += time.perf_counter() - self._asked

    def on_train_batch_end(self, trainer: Any, module: Any, *_: Any) -> None:
        """Count, and from time to time look at the loss, which waits for the device."""
        now, done = time.perf_counter(), trainer.global_step
        if done <= self.WARM:
            self._start = now
            self.losses.append(float(module.updates["generator"].report["stft"]))
            return
        self.updates, self._last = self.updates + 1, now

    def on_train_end(self, trainer: Any, module: Any) -> None:
        """Look at the last loss."""
        self.losses.append(float(module.updates["generator"].report["stft"]))
        self._last = time.perf_counter()

    def seconds(self) -> float:
        """Since the first updates."""
        return max(self._last - self._start, 1e-9)


class _Noise(Dataset):
    """Segments of noise with their mels, for machines that cannot read recordings."""

    def __init__(self, scale: Scale, module: UnivNet) -> None:
        self.audio = 0.1 * torch.randn(64, 1, scale.segment)
        self.mel = type(module.mel)(**module.mel.config)(self.audio)

    def __len__(self) -> int:
        return 100 * len(self.audio)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"audio": self.audio[index % 64], "mel": self.mel[index % 64]}
