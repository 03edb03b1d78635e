"""UnivNet: train and use a GAN vocoder (Jang et al. 2021, arXiv 2106.07889) with PyTorch Lightning."""

from typing import TYPE_CHECKING

from univnet.common.lazy import lazily

if TYPE_CHECKING:
    from univnet.audio import LogMelSpectrogram
    from univnet.data import AudioDataModule
    from univnet.models import Generator
    from univnet.module import Schedule, UnivNet
    from univnet.vocoder import Vocoder

__all__ = ["AudioDataModule", "Generator", "LogMelSpectrogram", "Schedule", "UnivNet", "Vocoder"]

# Imported when first asked for: a vocoder needs neither Lightning nor the data.
_HOMES = {
    "AudioDataModule": "univnet.data",
    "Generator": "univnet.models",
    "LogMelSpectrogram": "univnet.audio",
    "Schedule": "univnet.module",
    "UnivNet": "univnet.module",
    "Vocoder": "univnet.vocoder",
}


__getattr__, __dir__ = lazily(__name__, _HOMES)
