"""A small UnivNet validated on five utterances, by one process or by several."""

from pathlib import Path
from typing import Any

import soundfile as sf
import torch
from lightning.pytorch import Trainer
from torch.utils.data import DataLoader

from support import ROOT
from support.small import GENERATOR, MEL, MPD, MRD
from univnet import Generator, LogMelSpectrogram, UnivNet
from univnet.callbacks import ValidationMetrics
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator

METRICS = ("stft_loss", "mel_l1")
UTTERANCES, MEASURED = 5, (3, 5)  # the second with one that a rank sees twice


class Rolled(UnivNet):
    """Makes the recording itself, seven samples late."""

    def __init__(self) -> None:
        mrd, mpd = MultiResolutionSpectrogramDiscriminator(**MRD), MultiPeriodDiscriminator(**MPD)
        super().__init__(Generator(**GENERATOR), Discriminator(mrd, mpd), LogMelSpectrogram(**MEL))

    def validation_step(self, batch: Any, batch_idx: int) -> dict[str, Any]:
        return {"audio": batch["audio"].roll(7, dims=2)}


def batches() -> DataLoader:
    speech = sf.read(sorted((ROOT / "data" / "demo").glob("*.flac"))[0], dtype="float32")[0]
    audio = torch.from_numpy(speech[8000 : 8000 + UTTERANCES * 4096]).reshape(UTTERANCES, 1, 4096)
    mel = LogMelSpectrogram(**MEL)
    return DataLoader([{"audio": each, "mel": mel(each[None])[0]} for each in audio], batch_size=1)


def validate(folder: Path, **options: Any) -> tuple[Trainer, dict[str, Any]]:
    """Return the trainer, and what ``ValidationMetrics`` logged, by the number of utterances."""
    logged = {}
    for utterances in MEASURED:
        callback = ValidationMetrics(METRICS, utterances)
        trainer = Trainer(
            logger=False,
            default_root_dir=folder,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            callbacks=[callback],
            **options,
        )
        [values] = trainer.validate(Rolled(), batches(), verbose=False)
        logged[str(utterances)] = {name: values[f"val/{name}"] for name in METRICS}
    return trainer, logged
