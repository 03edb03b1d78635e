"""Nothing changes by trying things out: bit for bit, for every kind of range test, and when interrupted."""

import copy
import random
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.plugins.precision import MixedPrecision
from support.state import assert_same, state_of
from support.toy import ToyGAN, quiet_trainer, toy_data, toy_loader, weights
from torch import nn
from torch.amp import GradScaler
from torch.utils.data import DataLoader

from univnet.data import ResumableDataLoader
from univnet.gan import ExponentialMovingAverage, Tuner, Updates
from univnet.gan.tuner.sandbox import trial

KINDS = ("generator", "discriminator", "joint", "both", "grid")


class Counting(Callback):
    """A callback with a state, which the test must neither run nor forget."""

    def __init__(self) -> None:
        self.batches = 0

    def on_train_batch_end(self, *args: Any) -> None:
        self.batches += 1

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches}


class WithBatchNorm(ToyGAN):
    """Has statistics that a forward pass changes, and can be told to fail at a micro-batch."""

    fail_at: tuple[int, BaseException] | None = None  # on the class: the copy that is tried counts, too
    generated = 0

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(
            Updates(accumulate=2, clip_norm=1.0),
            Updates(accumulate=3),
            noise=0.1,
            schedulers=lambda g, d: (
                [g, d],
                [{"scheduler": torch.optim.lr_scheduler.ExponentialLR(o, 0.99), "interval": "step"} for o in (g, d)],
            ),
            **kwargs,
        )
        self.generator.insert(1, nn.BatchNorm1d(8, dtype=next(self.generator.parameters()).dtype))
        self.save_hyperparameters({"generator_lr": 1e-2, "discriminator_lr": 2e-2})

    def generate(self, batch: Any) -> Any:
        type(self).generated += 1
        if self.fail_at is not None and self.generated == self.fail_at[0]:
            raise self.fail_at[1]
        return super().generate(batch)


@pytest.fixture(autouse=True)
def _no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(WithBatchNorm, "fail_at", None)
    monkeypatch.setattr(WithBatchNorm, "generated", 0)


def trained(tmp_path: Path) -> tuple[L.Trainer, WithBatchNorm, DataLoader]:
    """Return a module in the midst of training: optimizer states, schedules, averages, an open window, a log."""
    model, loader = WithBatchNorm(), ResumableDataLoader(toy_data(80), 4, shuffle=True)
    callbacks = [Counting(), ExponentialMovingAverage(0.9)]
    trainer = quiet_trainer(tmp_path, max_steps=7, callbacks=callbacks, logger=CSVLogger(tmp_path), max_epochs=None)
    trainer.fit(model, loader)
    assert model.updates["discriminator"].position == 2
    assert any(p.grad is not None for p in model.discriminator.parameters())
    return trainer, model, loader


def search(trainer: L.Trainer, model: ToyGAN, loader: DataLoader, kind: str) -> Any:
    options = {"num_training": 3, "grid_size": 2} if kind == "grid" else {"num_training": 8}
    return Tuner(trainer).lr_find(
        model, loader, optimizer=kind, update_attr=False, early_stop_threshold=None, repeats=2, **options
    )


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_changes_in_the_midst_of_training(kind: str, tmp_path: Path) -> None:
    trainer, model, loader = trained(tmp_path)
    before = state_of(trainer, model, loader, folder=tmp_path)
    found = search(trainer, model, loader, kind)
    assert_same(before, state_of(trainer, model, loader, folder=tmp_path))
    assert WithBatchNorm.generated > 14 + 8  # it did train
    assert found is not None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("error", [RuntimeError("out of luck"), KeyboardInterrupt()], ids=["exception", "ctrl-c"])
def test_nothing_changes_when_interrupted_anywhere(kind: str, error: BaseException, tmp_path: Path) -> None:
    trainer, model, loader = trained(tmp_path)
    before = state_of(trainer, model, loader, folder=tmp_path)
    at = WithBatchNorm.generated + random.Random(kind).randint(1, 12)
    WithBatchNorm.fail_at = (at, error)
    with pytest.raises(type(error)):
        search(trainer, model, loader, kind)
    assert WithBatchNorm.generated == at
    assert_same(before, state_of(trainer, model, loader, folder=tmp_path))


@pytest.mark.parametrize("fresh", [True, False], ids=["fresh", "half-trained"])
def test_training_after_a_search_is_training_without_one(fresh: bool, tmp_path: Path) -> None:
    results = []
    for searched in (True, False):
        torch.manual_seed(3)
        if fresh:
            model, loader = WithBatchNorm(), DataLoader(toy_data(), 4, shuffle=True)
            trainer = quiet_trainer(tmp_path)
        else:
            trainer, model, loader = trained(tmp_path / str(searched))
        if searched:
            for kind in ("generator", "both", "grid"):
                search(trainer, model, loader, kind)
        trainer.fit_loop.epoch_loop.max_steps = 20
        trainer.fit_loop.max_epochs = 4
        trainer.fit(model, loader)
        results.append((weights(model), model.updates["generator"].steps, torch.rand(3)))
    assert_same(*results)


def test_a_loss_scale_is_kept(tmp_path: Path) -> None:
    scaler = GradScaler("cpu", init_scale=2.0**10, growth_interval=2)
    plugin = MixedPrecision("16-mixed", "cpu", scaler)
    trainer, model, loader = quiet_trainer(tmp_path, plugins=[plugin]), WithBatchNorm(dtype=torch.float32), None
    loader = toy_loader(dtype=torch.float32)
    trainer.fit(model, loader)
    before = state_of(trainer, model, loader)
    found = search(trainer, model, loader, "joint")
    assert_same(before, state_of(trainer, model, loader))
    assert len(found.curves["generator"].lr) == 8


def test_the_copy_has_what_the_module_has(tmp_path: Path) -> None:
    trainer, model, loader = trained(tmp_path)
    with trial(trainer, model, [], loader) as twin:
        assert twin is not model
        assert_same(model.state_dict(), twin.state_dict())
        assert_same([p.grad for p in model.parameters()], [p.grad for p in twin.parameters()])
        assert not {id(p) for p in model.parameters()} & {id(p) for p in twin.parameters()}
        assert trainer.global_step == 7


def test_a_module_that_cannot_be_copied_is_named(tmp_path: Path) -> None:
    model = ToyGAN()
    model.kept = model.generator(torch.zeros(1, 3, dtype=torch.float64))  # a tensor with a graph
    with pytest.raises(ValueError, match="ToyGAN cannot be copied"):
        search(quiet_trainer(tmp_path), model, toy_loader(), "generator")


def test_the_data_modules_attributes_are_put_back(tmp_path: Path) -> None:
    class Data(L.LightningDataModule):
        def __init__(self) -> None:
            super().__init__()
            self.asked, self.loader = 0, toy_loader()

        def train_dataloader(self) -> DataLoader:
            self.asked += 1
            return self.loader

    model, data, trainer = ToyGAN(), Data(), quiet_trainer(tmp_path)
    before = copy.copy(vars(data))
    Tuner(trainer).lr_find(model, datamodule=data, update_attr=False, num_training=5)
    assert vars(data) == before
    assert trainer.datamodule is None
