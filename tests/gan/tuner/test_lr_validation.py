"""The range test by validation batches."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import nn

from univnet.gan import Tuner


def test_validation_batches_are_always_the_same_ones(tmp_path: Path) -> None:
    model = ToyGAN(noise=0.5)
    model.generator.insert(1, nn.BatchNorm1d(8, dtype=torch.float64))
    data = toy_loader(400, 4), toy_loader(40, 8)
    options: dict[str, Any] = {"num_training": 6, "smoothing": 0, "update_attr": False, "validation_batches": 2}
    l2 = {"monitor": "generator/l2"}  # the discriminator, which trains, has no say in it
    torch.manual_seed(1)
    still = Tuner(quiet_trainer(tmp_path)).lr_find(model, *data, rates=[1e-300] * 6, **options, **l2)
    # Six training batches have moved the statistics of BatchNorm, and nothing else has changed.
    assert len(set(still.results["loss"])) == 6
    model.generator = ToyGAN().generator
    still = Tuner(quiet_trainer(tmp_path)).lr_find(model, *data, rates=[1e-300] * 6, **options, **l2)
    assert len(set(still.results["loss"])) == 1
    batches = list(data[1])[:2]
    torch.manual_seed(0)  # the batches' own
    with torch.no_grad():
        means = [model.generator_loss(batch, model.generate(batch))["l2"] for batch in batches]
    assert still.results["loss"][0] == pytest.approx(float(torch.stack(means).mean()), rel=1e-12)
    moving = Tuner(quiet_trainer(tmp_path)).lr_find(model, *data, rates=[0.05] * 40, **options, monitor="generator/l2")
    assert moving.results["loss"][-1] < moving.results["loss"][0]
    with pytest.raises(ValueError, match="no term of a validation batch's loss; name one of discriminator/fake, disc"):
        Tuner(quiet_trainer(tmp_path)).lr_find(model, *data, **options, monitor="discriminator/l2")
    with pytest.raises(ValueError, match="validation_batches=2, but there is nothing"):
        Tuner(quiet_trainer(tmp_path)).lr_find(model, data[0], **options)
