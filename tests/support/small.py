"""A UnivNet small enough to train in a second, on real speech, for the tests of the command line and the module."""

from pathlib import Path
from typing import Any

import torch
import yaml

from univnet import Generator, LogMelSpectrogram, UnivNet
from univnet.losses import MultiResolutionSTFTLoss
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator

GENERATOR = {
    "n_mels": 20,
    "channels": 4,
    "noise_channels": 4,
    "dilations": [1, 3],
    "predictor_channels": 8,
    "predictor_blocks": 0,
}
MEL = {"sample_rate": 16000, "n_mels": 20}
RESOLUTIONS = [[512, 50, 240], [256, 64, 128]]
MRD = {"resolutions": RESOLUTIONS, "channels": 2}
MPD = {"periods": [2, 3], "channels": [4, 8]}


def small_univnet(**options: Any) -> UnivNet:
    """Make it, from seed 0; ``options`` are the module's own."""
    torch.manual_seed(0)
    mrd, mpd = MultiResolutionSpectrogramDiscriminator(**MRD), MultiPeriodDiscriminator(**MPD)
    options = {"generator": Generator(**GENERATOR), "mel": LogMelSpectrogram(**MEL)} | options
    return UnivNet(discriminator=Discriminator(mrd, mpd), stft_loss=MultiResolutionSTFTLoss(RESOLUTIONS), **options)


def class_path(name: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": f"univnet.{name}", "init_args": init_args}


def write_config(folder: Path, clips: int, demo: Path) -> Path:
    """Link ``clips`` recordings of the demo into ``folder / "speech"`` and write a configuration to train on them."""
    speech = folder / "speech"
    speech.mkdir(parents=True)
    for path in sorted(demo.glob("*.flac"))[:clips]:
        (speech / path.name).symlink_to(path)
    config = {
        "trainer": {
            "accelerator": "cpu",
            "max_steps": 1,
            "log_every_n_steps": 1,
            "num_sanity_val_steps": 0,
            "check_val_every_n_epoch": None,
            "val_check_interval": 4,
            "deterministic": True,
            "logger": {
                "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
                "init_args": {"save_dir": str(folder / "runs"), "name": "small"},
            },
        },
        "model": {
            "generator": class_path("Generator", **GENERATOR),
            "discriminator": class_path(
                "models.Discriminator",
                mrd=class_path("models.MultiResolutionSpectrogramDiscriminator", **MRD),
                mpd=class_path("models.MultiPeriodDiscriminator", **MPD),
            ),
            "mel": class_path("LogMelSpectrogram", **MEL),
            "stft_loss": class_path("losses.MultiResolutionSTFTLoss", resolutions=RESOLUTIONS),
        },
        "data": {
            "root": str(speech),
            "segment_length": 2048,
            "epoch": "files",  # as many micro-batches as the tests count on
            "batch_size": 1,
            "num_workers": 0,
            "validation": 2,
            "validation_seconds": 1.0,
        },
        "samples": {"count": 1},
    }
    path = folder / "small.yaml"
    path.write_text(yaml.safe_dump(config))
    return path
