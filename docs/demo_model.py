"""The demo's networks in Python, and a trainer that leaves nothing behind: for the experiments of the other scripts."""

from typing import Any

import lightning as L

from univnet import Generator, LogMelSpectrogram, UnivNet
from univnet.gan import Updates
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator


def demo_model(kind: type[UnivNet] = UnivNet, clip_norm: float | None = 10.0, **options: Any) -> UnivNet:
    """Return the networks of configs/demo.yaml, with weights by torch's seed, as a ``kind`` with ``options``."""
    small = MultiPeriodDiscriminator(periods=[2, 3, 5], channels=[16, 32, 64, 128, 128])
    return kind(
        Generator(n_mels=80, channels=16, noise_channels=32, predictor_channels=32, predictor_blocks=2),
        Discriminator(MultiResolutionSpectrogramDiscriminator(channels=8), small),
        LogMelSpectrogram(sample_rate=16000, n_mels=80),
        generator_updates=Updates(clip_norm=clip_norm),
        discriminator_updates=Updates(clip_norm=clip_norm),
        **options,
    )


def quiet_trainer(updates: int, validations: int = 1, precision: Any = "bf16-mixed", **options: Any) -> L.Trainer:
    """Return a trainer on the CPU that validates ``validations`` times, and writes neither logs nor checkpoints."""
    return L.Trainer(
        max_steps=updates,
        accelerator="cpu",
        precision=precision,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=updates // validations,
        **options,
    )
