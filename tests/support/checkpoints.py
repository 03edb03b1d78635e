"""A checkpoint of a small UnivNet, without training one."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Trainer

from support.small import GENERATOR, MEL, MPD, MRD, RESOLUTIONS
from univnet import Generator, LogMelSpectrogram, UnivNet
from univnet.convert import plain_state_dict
from univnet.losses import MultiResolutionSTFTLoss
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator


def small_univnet(seed: int = 0, **options: Any) -> UnivNet:
    """Return it, with weights that are as audible as trained ones."""
    torch.manual_seed(seed)
    module = UnivNet(
        generator=Generator(**GENERATOR),
        discriminator=Discriminator(MultiResolutionSpectrogramDiscriminator(**MRD), MultiPeriodDiscriminator(**MPD)),
        mel=LogMelSpectrogram(**MEL),
        stft_loss=MultiResolutionSTFTLoss(resolutions=RESOLUTIONS),
        **options,
    )
    with torch.no_grad():
        for parameter in module.generator.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module


def save(module: UnivNet, path: Path, averaged: bool = False) -> Path:
    """Write a checkpoint of ``module``; with ``averaged``, also an average: its effective weights and 0.01."""
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    if averaged:
        content = torch.load(path, weights_only=True)
        average = {name: value + 0.01 for name, value in plain_state_dict(module.generator).items()}
        content["averaged"] = {"generator": {"ema": {"n_averaged": 3, "updates": 3, "weights": average}}}
        torch.save(content, path)
    return path
