"""Whether the order of play moves UnivNet's validation: ``python docs/order_of_play.py [UPDATES]``, in the repository.

The demo's networks and speech, the game from update 50 on, three seeds for each order; prints the table of
docs/another_gan.md.
"""

import statistics
import sys

import lightning as L
import torch

from univnet import AudioDataModule, Generator, LogMelSpectrogram, UnivNet
from univnet.gan import ExponentialMovingAverage, Updates
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator

ORDERS = {
    "simultaneous": {},
    "generator first, fresh fakes": {"order": "generator_first", "fresh_fakes": True},
    "discriminator first": {"order": "discriminator_first"},
}
TERMS = ("val/stft", "val/mel")


def validated(seed: int, updates: int, **order: object) -> dict[str, float]:
    """Train, and return the validation of the averaged weights."""
    L.seed_everything(seed)
    small = MultiPeriodDiscriminator(periods=[2, 3, 5], channels=[16, 32, 64, 128, 128])
    model = UnivNet(
        Generator(n_mels=80, channels=16, noise_channels=32, predictor_channels=32, predictor_blocks=2),
        Discriminator(MultiResolutionSpectrogramDiscriminator(channels=8), small),
        LogMelSpectrogram(sample_rate=16000, n_mels=80),
        discriminator_start=50,
        generator_lr=1e-3,
        discriminator_lr=2e-4,
        generator_updates=Updates(clip_norm=10.0),
        discriminator_updates=Updates(clip_norm=10.0),
        **order,
    )
    data = AudioDataModule(
        manifest="data/demo/manifest.tsv", mel=model.mel, segment_length=8192, batch_size=4, num_workers=0, validation=4
    )
    trainer = L.Trainer(
        max_steps=updates,
        accelerator="cpu",
        precision="bf16-mixed",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        check_val_every_n_epoch=None,
        val_check_interval=updates,
        callbacks=[ExponentialMovingAverage(0.99)],
    )
    trainer.fit(model, data)
    return {term: float(trainer.callback_metrics[term]) for term in TERMS}


def main(updates: int) -> None:
    """Print the table."""
    torch.set_num_threads(1)
    print(f"| after {updates} updates | M-STFT | log-mel |\n|---|---|---|")
    for name, order in ORDERS.items():
        runs = [validated(seed, updates, **order) for seed in (1, 2, 3)]
        cells = [[run[term] for run in runs] for term in TERMS]
        print(
            f"| {name} | " + " | ".join(f"{statistics.mean(c):.3f} ± {statistics.stdev(c):.3f}" for c in cells) + " |"
        )


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
