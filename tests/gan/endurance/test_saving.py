"""When ``ModelCheckpoint`` saves two players: when it saves Lightning's one, trained on the same micro-batches."""

from datetime import timedelta
from itertools import count
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks import model_checkpoint as theirs
from support.averages import OnePlayer
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor
from torch.optim.lr_scheduler import StepLR

from univnet.gan import Updates

SCORES = [0.1, 0.5, 0.3, 0.9, 0.4, 1.0, 0.2, 0.8]  # of one validation after the other


class Scored:
    """Logs a term of training that falls, and a score of validation that is known beforehand."""

    def on_fit_start(self: Any) -> None:
        super().on_fit_start()  # type: ignore[misc]
        self.scores, self.falling = iter(SCORES), count(-1, -1)

    def note(self: Any) -> None:
        self.log("falling", float(next(self.falling)))

    def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    def on_validation_epoch_end(self: Any) -> None:
        self.log("score", next(self.scores))


class One(Scored, OnePlayer):
    interval = "epoch"

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        self.note()
        return super().training_step(batch, batch_idx)

    def configure_optimizers(self) -> Any:
        optimizer = super().configure_optimizers()
        return [optimizer], [{"scheduler": StepLR(optimizer, 1), "interval": self.interval}]


class Two(Scored, ToyGAN):
    interval = "epoch"

    def generate(self, batch: Any) -> Tensor:
        self.note()
        return super().generate(batch)

    def configure_optimizers(self) -> Any:
        optimizers = super().configure_optimizers()
        return optimizers, [{"scheduler": StepLR(optimizers[0], 1), "interval": self.interval}]


def saved(folder: Path, module: L.LightningModule, checkpoint: dict[str, Any], **options: Any) -> Any:
    """Return what was written, in order, what is left, and the best score."""
    callback = ModelCheckpoint(folder, "{epoch}-{step}", **checkpoint)
    options = {"max_epochs": 2, "enable_checkpointing": True, "num_sanity_val_steps": 0, **options}
    trainer = quiet_trainer(folder, callbacks=[callback], **options)
    write, written = trainer.save_checkpoint, []

    def note(path: Any, *args: Any, **kwargs: Any) -> None:
        written.append((Path(path).name, trainer.global_step))
        write(path, *args, **kwargs)

    trainer.save_checkpoint = note  # type: ignore[method-assign]
    trainer.fit(module, toy_loader(), toy_loader(4))
    left = {path.name: torch.load(path, weights_only=True)["lr_schedulers"] for path in folder.glob("*.ckpt")}
    return written, {name: state[0]["last_epoch"] for name, state in left.items()}, callback.best_model_score


ALL: dict[str, Any] = {"save_top_k": -1}
VALIDATED = {"monitor": "score", "mode": "max", "save_on_train_epoch_end": False}
EVERY_MINUTE = {"train_time_interval": timedelta(minutes=1)}


@pytest.mark.parametrize(
    ("checkpoint", "options"),
    [
        ({}, {"val_check_interval": 0.2}),
        (ALL | {"every_n_epochs": 0}, {}),
        (ALL | {"every_n_epochs": 2}, {"max_epochs": 3}),
        (ALL | {"every_n_train_steps": 2}, {}),
        ({"monitor": "falling", "save_top_k": 2, "save_last": True}, {"val_check_interval": 0.3}),
        ({"monitor": "falling", "every_n_train_steps": 1}, {}),
        (ALL | VALIDATED | {"every_n_train_steps": 1}, {"val_check_interval": 0.5}),
        (VALIDATED | {"every_n_train_steps": 2}, {"max_epochs": 4}),
        (ALL | EVERY_MINUTE, {"max_epochs": 3}),
        (VALIDATED | EVERY_MINUTE, {"max_epochs": 4, "check_val_every_n_epoch": 2}),
    ],
    ids=str,
)
def test_when_it_saves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint: Any, options: Any) -> None:
    found = []
    for module in (One(), Two(Updates(3), Updates(2))):
        clock = count(0, 7)  # seconds for each micro-batch
        monkeypatch.setattr(theirs, "time", SimpleNamespace(monotonic=lambda clock=clock: next(clock)))
        accumulation = {"accumulate_grad_batches": 3} if isinstance(module, One) else {}
        folder = tmp_path / type(module).__name__
        found.append(saved(folder, module, checkpoint, **options, **accumulation))
    assert found[0] == found[1]
    assert bool(found[0][0]) == (checkpoint.get("every_n_epochs") != 0)


@pytest.mark.parametrize("interval", ["step", "epoch"])
def test_a_checkpoint_holds_the_schedule_as_it_is_after_the_update(tmp_path: Path, interval: str) -> None:
    found = []
    for kind in (One, Two):
        module = kind()
        module.interval = interval
        found.append(saved(tmp_path / kind.__name__, module, ALL | {"every_n_train_steps": 5}))
    assert found[0] == found[1]
    expected = {"step": [5, 10, 15, 20], "epoch": [0, 1, 1, 2]}[interval]
    assert [found[1][1][name] for name, _ in found[1][0]] == expected


def test_a_checkpoint_callback_of_ones_own_sees_the_module(tmp_path: Path) -> None:
    class Own(ModelCheckpoint):
        def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
            seen.append(pl_module.updates["generator"].steps)
            super().on_train_batch_end(trainer, pl_module, *args)

    seen: list[int] = []
    trainer = quiet_trainer(tmp_path, callbacks=[Own(tmp_path)], enable_checkpointing=True)
    trainer.fit(ToyGAN(), toy_loader(8))
    assert seen == [1, 2]
