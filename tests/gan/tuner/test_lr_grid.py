"""The grid of both players' rates."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.sweeps import Tuned
from support.toy import quiet_trainer, toy_loader

from univnet.gan import Collapse, Tuner


def test_a_grid_is_every_pair_from_the_same_start(tmp_path: Path) -> None:
    trainer, model, loader = quiet_trainer(tmp_path), Tuned(), toy_loader(640, 32)
    options: dict[str, Any] = {"monitor": {"generator": "generator/l2"}, "early_stop_threshold": 50.0}
    grid = Tuner(trainer).lr_find(
        model, loader, optimizer="grid", grid_size=3, num_training=12, min_lr=1e-4, max_lr=1e-2, **options
    )
    assert grid.results["generator_lr"] == pytest.approx([1e-4, 1e-3, 1e-2])
    joint = Tuner(trainer).lr_find(
        model, loader, optimizer="joint", ratio=0.1, rates=[grid.rates[2]] * 12, update_attr=False, **options
    )
    assert grid.loss[1][2] == pytest.approx(np.mean(joint.curves["generator"].raw[-3:]), rel=1e-9)
    assert grid.suggestions()["generator"] == grid.suggestion() == pytest.approx(1e-2)  # the fastest of three slow ones
    assert model.hparams["generator_lr"] == grid.suggestion()
    mad = Tuner(trainer).lr_find(
        model, loader, optimizer="grid", rates=[1e-3, 1e3], num_training=30, update_attr=False,
        early_stop_threshold=4.0, collapse=Collapse(loss=0),
    )  # fmt: skip
    assert math.isnan(mad.loss[0][1])
    assert "diverged" in mad.ended[0][1]
    assert mad.suggestion() == 1e-3
    assert mad.as_dict()["loss"][0][1] is None
