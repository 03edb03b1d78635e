"""Callbacks ask the module for a mel-spectrogram or a sample rate, whatever its class."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor, nn
from torch.utils.data import DataLoader

from univnet import LogMelSpectrogram
from univnet.callbacks import AudioThroughput, ValidationSamples


class Plain(LightningModule):
    """Learns to copy audio, by Lightning's automatic optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(1))

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        return (self.gain * batch["audio"]).square().mean()

    def validation_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        return {"audio": self.gain * batch["audio"]}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class Knowing(Plain):
    sample_rate = 8000

    def __init__(self) -> None:
        super().__init__()
        self.mel = LogMelSpectrogram(8000, 256, 64, n_mels=20)


class Heard(Logger):
    name, version = "heard", "0"

    def __init__(self) -> None:
        self.names: list[str] = []
        self.rates: list[int] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.names += metrics

    def log_hyperparams(self, *_: Any, **__: Any) -> None: ...

    def log_audio(self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self.names.append(key)
        self.rates += kwargs["sample_rate"]

    def log_image(self, key: str, images: list[Any], step: int | None = None) -> None:
        self.names.append(key)


def fit(module: Plain, callback: Callback, logger: Logger, tmp_path: Path) -> None:
    loader = DataLoader([{"audio": torch.randn(1, 1, 4096)}] * 2, batch_size=None)
    options: dict[str, Any] = {"accelerator": "cpu", "max_epochs": 1, "log_every_n_steps": 1, "logger": logger}
    quiet = dict.fromkeys(("enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(callbacks=[callback], default_root_dir=tmp_path, num_sanity_val_steps=0, **options, **quiet)
    trainer.fit(module, loader, loader)


def test_a_module_of_another_kind_is_heard_and_counted(tmp_path: Path) -> None:
    logger = Heard()
    fit(Knowing(), ValidationSamples(1), logger, tmp_path)
    assert {"sample_0/generated", "sample_0/real", "sample_0/mel"} <= set(logger.names)
    assert logger.rates == [8000, 8000]
    fit(Knowing(), AudioThroughput(), logger, tmp_path)
    assert "throughput/audio_seconds_per_second" in logger.names


@pytest.mark.parametrize(
    ("callback", "lacks"), [(ValidationSamples(), r"Plain\.mel"), (AudioThroughput(), r"Plain\.sample_rate")]
)
def test_what_a_module_lacks_is_said_before_training(callback: Callback, lacks: str, tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=lacks):
        fit(Plain(), callback, Heard(), tmp_path)
