"""A checkpoint holds raw and averaged weights, and a run resumed from it is the same to the bit."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from support.averages import Validated, trained
from support.resuming import PARTS, MemoryLogger, SaveEverywhere, loader, plateaus, schedulers
from support.state import assert_equal_leaves
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import nn

from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, Updates, averaged_weights

MODES: dict[str, dict[str, Any]] = {
    "epoch_end": {"swa_epoch_start": 2, "annealing_epochs": 2},
    "epoch_start": {"swa_epoch_start": 2, "annealing_epochs": 2, "average_at": "epoch_start"},
    "updates": {"swa_update_start": 3, "annealing_updates": 5, "every_n_updates": 2},
    "batch_norm": {"swa_epoch_start": 0.5, "annealing_updates": 3},
}


def test_a_checkpoint_holds_raw_and_averaged_wherever_it_is_written(tmp_path: Path) -> None:
    class Meddler(Callback):
        def on_validation_epoch_end(self, trainer: Any, module: Any) -> None:
            trainer.save_checkpoint(tmp_path / "within.ckpt")
            trainer.save_checkpoint(tmp_path / "alone.ckpt", weights_only=True)

    ema, best = ExponentialMovingAverage(0.9), ModelCheckpoint(tmp_path, "best", monitor="val/l2", save_last=True)
    _, watch, _ = trained(tmp_path, [Meddler(), ema, best], Validated(), max_epochs=1, enable_checkpointing=True)
    for name in ("within", "alone", "best", "last"):
        checkpoint = torch.load(tmp_path / f"{name}.ckpt", weights_only=True)
        raw = {f"generator.{key}": value for key, value in watch.updates[-1].state_dict().items()}
        assert_equal_leaves({key: checkpoint["state_dict"][key] for key in raw}, raw)
        assert_equal_leaves(averaged_weights(checkpoint), ema.averaged)
        assert checkpoint["averaged"]["generator"]["ema"]["n_averaged"] == 10


class Resumed(ToyGAN):
    def __init__(self, *args: Any, normed: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if normed:
            self.generator.append(nn.BatchNorm1d(2))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/l2", (self.generator(batch[0]) - batch[1]).square().mean())


def resumable(folder: Path, mode: str, checkpoint: Path | None = None, save: str = "", **kwargs: Any) -> Any:
    torch.manual_seed(5)
    saver, logger = SaveEverywhere(folder), MemoryLogger()
    averages = [StochasticWeightAveraging(3e-3, **MODES[mode]), ExponentialMovingAverage(0.9, validate_raw=True)]
    trainer = quiet_trainer(
        folder,
        logger=logger,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        val_check_interval=5,
        callbacks=[saver, *averages] if save == "before" else [*averages, saver] if save else averages,
        **{"max_epochs": 3, **kwargs},
    )
    schedule = schedulers if mode == "updates" else plateaus
    updates = Updates(3, clip_norm=1.0), Updates({0: 2, 1: 4})
    gan = Resumed(*updates, normed=mode == "batch_norm", noise=0.5, schedulers=schedule, dtype=torch.float32)
    validation = toy_loader(8, dtype=torch.float32)
    validation.generator = torch.Generator()
    trainer.fit(gan, loader(0), validation, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "final.ckpt")
    final = torch.load(folder / "final.ckpt", weights_only=True)
    own = {key: value for key, value in final["callbacks"].items() if "player" in key}
    parts = final | final["gan"]["players"] | {"rng": final["gan"]["rng"], "own": own}
    return {part: parts[part] for part in (*PARTS, "averaged", "own")}, logger.rows, saver


@pytest.mark.parametrize(("mode", "save"), [*((mode, "after") for mode in MODES), ("updates", "before")])
def test_resume_at_every_micro_batch(mode: str, save: str, tmp_path: Path) -> None:
    final, rows, saver = resumable(tmp_path, mode, save=save)
    assert len(saver.rows) == 45
    for stop, logged in saver.rows.items():
        again, later, _ = resumable(tmp_path, mode, tmp_path / f"{stop}.ckpt")
        assert_equal_leaves(again, final)
        assert_equal_leaves(later, rows[logged:])


@pytest.mark.parametrize("steps", [6, 7, 8])
def test_a_run_prolonged_leaves_its_former_last_weights_out(steps: int, tmp_path: Path) -> None:
    final, _, _ = resumable(tmp_path, "updates")
    _, _, saver = resumable(tmp_path, "updates", max_steps=steps, save="after")
    last = tmp_path / f"batch{max(int(name[5:]) for name in saver.rows if name.startswith('batch'))}.ckpt"
    short = torch.load(last, weights_only=True)["averaged"]["generator"]["swa"]
    assert short["n_averaged"] == {6: 2, 7: 2, 8: 3}[steps]
    again, _, _ = resumable(tmp_path, "updates", last)
    assert_equal_leaves(again, final)
