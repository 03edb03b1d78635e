"""Stopping at any micro-batch and resuming gives the run that never stopped, bit for bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.resuming import PARTS, trained
from support.state import assert_same

SETTINGS = {
    "plain": {},
    "fp16": {"fp16": True},
    "workers": {"workers": 2},
    "validated": {"validated": True},
}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_resume_at_every_micro_batch(settings: dict[str, Any], tmp_path: Path) -> None:
    final, rows, saver = trained(tmp_path, **settings, save=True)
    assert len(saver.rows) == (24 if "validated" in settings else 20)
    for stop, logged in saver.rows.items():
        if "workers" in settings and stop not in ("batch0", "batch4", "batch9", "batch13", "batch19"):
            continue  # starting processes takes time
        again, later, _ = trained(tmp_path, **settings, checkpoint=tmp_path / f"{stop}.ckpt")
        assert_same({part: again[part] for part in PARTS}, {part: final[part] for part in PARTS})
        assert_same(later, rows[logged:])


def test_an_open_window_is_in_the_checkpoint_and_a_closed_one_costs_nothing(tmp_path: Path) -> None:
    trained(tmp_path, save=True)
    opened = torch.load(tmp_path / "batch1.ckpt", weights_only=True)["gan"]["players"]
    assert len(opened["generator"]["grads"]) == 4
    assert opened["generator"]["position"] == 2
    assert opened["discriminator"]["grads"] == []
