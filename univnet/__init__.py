"""UnivNet: train and use a GAN vocoder (Jang et al. 2021, arXiv 2106.07889) with PyTorch Lightning."""

from univnet.audio import LogMelSpectrogram
from univnet.data import AudioDataModule
from univnet.models import Generator
from univnet.module import Schedule, UnivNet
from univnet.vocoder import Vocoder

__all__ = ["AudioDataModule", "Generator", "LogMelSpectrogram", "Schedule", "UnivNet", "Vocoder"]
