"""Whether the order of play moves UnivNet's validation: ``python docs/order_of_play.py [UPDATES]``, in the repository.

The demo's networks and speech, the game from update 50 on, three seeds for each order; prints the table of
docs/another_gan.md.
"""

import statistics
import sys

import lightning as L
import torch
from demo_model import demo_model, quiet_trainer

from univnet import AudioDataModule
from univnet.gan import ExponentialMovingAverage

ORDERS = {
    "simultaneous": {},
    "generator first, fresh fakes": {"order": "generator_first", "fresh_fakes": True},
    "discriminator first": {"order": "discriminator_first"},
}
TERMS = ("val/stft", "val/mel")


def validated(seed: int, updates: int, **order: object) -> dict[str, float]:
    """Train, and return the validation of the averaged weights."""
    L.seed_everything(seed)
    model = demo_model(discriminator_start=50, generator_lr=1e-3, discriminator_lr=2e-4, **order)
    data = AudioDataModule(
        manifest="data/demo/manifest.tsv", mel=model.mel, segment_length=8192, batch_size=4, num_workers=0, validation=4
    )
    trainer = quiet_trainer(updates, callbacks=[ExponentialMovingAverage(0.99)])
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
