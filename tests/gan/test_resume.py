"""Stopping at any micro-batch and resuming gives the run that never stopped, bit for bit."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from support import resuming
from support.resuming import PARTS, SaveEverywhere, trained
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
    assert len(saver.rows) == (20 + 2 * 4 + 2 if "validated" in settings else 20 + 2)
    for stop, logged in saver.rows.items():
        if "workers" in settings and stop not in ("batch0", "batch4", "batch9", "batch13", "batch19"):
            continue  # starting processes takes time
        again, later, _ = trained(tmp_path, **settings, checkpoint=tmp_path / f"{stop}.ckpt")
        assert_same({part: again[part] for part in PARTS}, {part: final[part] for part in PARTS})
        assert_same(later, rows[logged:])


@pytest.mark.parametrize("seed", range(6))
def test_resume_again_and_again(seed: int, tmp_path: Path) -> None:
    """Chains of stops, among them an epoch's end after an epoch's end, with a validation due."""
    final, rows, saver = trained(tmp_path / "whole", validated=True, save=True)
    draw, folder, logged = random.Random(seed), tmp_path / "whole", 0
    stops = [["batch9", "epoch1"], ["validating9", "batch19"]][seed] if seed < 2 else [None] * 4
    for number, stop in enumerate(stops):
        stop = stop or draw.choice(list(saver.rows))
        logged += saver.rows[stop]
        checkpoint, folder = folder / f"{stop}.ckpt", tmp_path / str(number)
        again, later, saver = trained(folder, validated=True, checkpoint=checkpoint, save=True)
        assert_same({part: again[part] for part in PARTS}, {part: final[part] for part in PARTS})
        assert_same(later, rows[logged:])
        if not saver.rows:
            break


@pytest.mark.parametrize(("max_steps", "every", "stop"), [(4, 5, 9), (1, 3, 2)], ids=["epoch's end", "within an epoch"])
def test_a_validation_that_is_due_when_all_updates_are_made_runs_after_the_resume(
    max_steps: int, every: int, stop: int, tmp_path: Path
) -> None:
    how = {"validated": True, "max_steps": max_steps, "val_check_interval": every}
    final, rows, saver = trained(tmp_path, **how, save=True)
    assert "val/l2" in rows[-1][1]
    for name in (f"batch{stop}", f"validating{stop}"):
        again, later, _ = trained(tmp_path, **how, checkpoint=tmp_path / f"{name}.ckpt")
        assert_same({part: again[part] for part in PARTS}, {part: final[part] for part in PARTS})
        assert_same(later, rows[saver.rows[name] :])
        assert later


def test_an_open_window_is_in_the_checkpoint_and_a_closed_one_costs_nothing(tmp_path: Path) -> None:
    trained(tmp_path, save=True)
    opened = torch.load(tmp_path / "batch1.ckpt", weights_only=True)["gan"]["players"]
    assert len(opened["generator"]["grads"]) == 4
    assert opened["generator"]["position"] == 2
    assert opened["discriminator"]["grads"] == []


class SaveThere(SaveEverywhere):
    """Writes checkpoints where a run has already begun with what comes next, and where it has just been resumed."""

    def on_train_start(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, "start")

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"begun{trainer.fit_loop.total_batch_idx}")

    def on_fetch_start(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"fetch{trainer.fit_loop.total_batch_idx}")

    def on_validation_batch_end(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"within{trainer.fit_loop.total_batch_idx}")


def test_a_checkpoint_holds_the_last_micro_batchs_end_also_where_the_next_has_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loader has handed out one batch more by then, which may be an epoch's last."""
    monkeypatch.setattr(resuming, "SaveEverywhere", SaveThere)
    final, rows, saver = trained(tmp_path / "whole", validated=True, save=True)
    stops = [f"{when}{batch}" for when in ("begun", "fetch") for batch in (4, 8, 9, 10, 14)] + ["within4", "within9"]
    for stop in stops:
        again, later, resaver = trained(
            tmp_path / stop, validated=True, checkpoint=tmp_path / "whole" / f"{stop}.ckpt", save=True
        )
        assert_same({part: again[part] for part in PARTS}, {part: final[part] for part in PARTS})
        assert_same(later, rows[saver.rows[stop] :])
        assert resaver.rows["start"] == 0
        once_more, latest, _ = trained(tmp_path, validated=True, checkpoint=tmp_path / stop / "start.ckpt")
        assert_same({part: once_more[part] for part in PARTS}, {part: final[part] for part in PARTS})
        assert_same(latest, later)
