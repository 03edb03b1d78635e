"""Lightning's techniques for one optimizer are refused at once, each with the name of what stands in its place."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import LightningDataModule
from lightning.pytorch import callbacks as lightning_callbacks
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.tuner import Tuner as LightningTuner
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.toy import ToyGAN, quiet_trainer, toy_loader

from univnet.gan import Tuner, Updates


class OwnAverage(lightning_callbacks.WeightAveraging):
    """A user's own, of Lightning's kind."""


class UnreadData(LightningDataModule):
    def prepare_data(self) -> None:
        pytest.fail("data are prepared")

    def setup(self, stage: str) -> None:
        pytest.fail("data are read")

    def train_dataloader(self) -> Any:
        return toy_loader()


ACCUMULATE, CLIP = "generator_updates.accumulate", "generator_updates.clip_norm"
REFUSED = [
    ({"accumulate_grad_batches": 2}, ACCUMULATE),
    ({"gradient_clip_val": 0.0}, CLIP),
    ({"gradient_clip_algorithm": "value"}, CLIP),
    (lightning_callbacks.GradientAccumulationScheduler({2: 4}), ACCUMULATE),
    (lightning_callbacks.StochasticWeightAveraging(1e-3), "univnet.gan.StochasticWeightAveraging"),
    (lightning_callbacks.EMAWeightAveraging(), "univnet.gan.ExponentialMovingAverage"),
    (OwnAverage(), "OwnAverage: use univnet.gan.ExponentialMovingAverage"),
    (lightning_callbacks.LearningRateFinder(), "Tuner(trainer).lr_find(model)"),
    (lightning_callbacks.BatchSizeFinder(), "Tuner(trainer).scale_batch_size(model)"),
    ({"strategy": DDPStrategy(find_unused_parameters=False), "devices": 1}, "use strategy=ddp"),
]


@pytest.mark.parametrize(("technique", "told"), REFUSED)
def test_fit_refuses_before_data_are_read_and_a_folder_is_made(tmp_path: Path, technique: Any, told: str) -> None:
    options = technique if isinstance(technique, dict) else {"callbacks": [technique]}
    trainer = quiet_trainer(tmp_path, logger=CSVLogger(tmp_path / "logs"), **options)
    with pytest.raises(MisconfigurationException, match="cannot serve two") as refused:
        trainer.fit(ToyGAN(), datamodule=UnreadData())
    assert told in str(refused.value)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["val_check_interval", "check_val_every_n_epoch"])
def test_no_interval_is_refused_before_lightning_divides_by_it(tmp_path: Path, option: str) -> None:
    with pytest.raises(MisconfigurationException, match=rf"{option} must be at least 1.*limit_val_batches to 0"):
        quiet_trainer(tmp_path, **{option: 0}).fit(ToyGAN(), datamodule=UnreadData())


def test_all_are_named_at_once(tmp_path: Path) -> None:
    swa, batch = lightning_callbacks.StochasticWeightAveraging(1e-3), lightning_callbacks.BatchSizeFinder()
    trainer = quiet_trainer(tmp_path, accumulate_grad_batches=3, gradient_clip_val=1.0, callbacks=[swa, batch])
    with pytest.raises(MisconfigurationException) as refused:
        trainer.fit(ToyGAN(), toy_loader())
    for name in ("accumulate_grad_batches", "gradient_clip_val", "StochasticWeightAveraging", "BatchSizeFinder"):
        assert name in str(refused.value)


@pytest.mark.parametrize(
    ("search", "told"), [("lr_find", "Tuner(trainer).lr_find"), ("scale_batch_size", "Tuner(trainer).scale_batch_size")]
)
def test_lightnings_tuner_is_refused_and_leaves_nothing_behind(tmp_path: Path, search: str, told: str) -> None:
    trainer = quiet_trainer(tmp_path)
    with pytest.raises(MisconfigurationException, match="cannot serve two") as refused:
        getattr(LightningTuner(trainer), search)(ToyGAN(), datamodule=UnreadData())
    assert told in str(refused.value)
    trainer.datamodule = None  # which Lightning keeps from the refused fit
    trainer.fit(ToyGAN(), toy_loader(8))
    assert trainer.global_step == 2


def test_ours_is_refused_the_same(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, gradient_clip_val=1.0)
    with pytest.raises(MisconfigurationException, match=r"generator_updates\.clip_norm"):
        Tuner(trainer).lr_find(ToyGAN(), toy_loader(), num_training=3, update_attr=False)


def test_what_serves_is_not_refused(tmp_path: Path) -> None:
    served = [lightning_callbacks.LearningRateMonitor, lightning_callbacks.Timer, lightning_callbacks.ModelSummary]
    trainer = quiet_trainer(tmp_path, logger=CSVLogger(tmp_path), callbacks=[each() for each in served])
    trainer.fit(ToyGAN(), toy_loader(8))
    assert trainer.global_step == 2


def test_measuring_with_them_is_not_refused(tmp_path: Path) -> None:
    class Validated(ToyGAN):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    quiet_trainer(tmp_path, accumulate_grad_batches=2).validate(Validated(), toy_loader(4), verbose=False)


@pytest.mark.parametrize("earlier", [False, True], ids=["", "of an earlier version"])
@pytest.mark.parametrize(("before", "now"), [("adam", "sgd"), ("sgd", "adam"), ("momentum", "foreach")])
def test_another_optimizer_does_not_go_on(tmp_path: Path, before: str, now: str, earlier: bool) -> None:
    path = tmp_path / "saved.ckpt"
    trainer = quiet_trainer(tmp_path)
    trainer.fit(ToyGAN(optimizer=before), toy_loader(8))
    trainer.save_checkpoint(path)
    if earlier:
        saved = torch.load(path, weights_only=True)
        for player in saved["gan"]["players"].values():
            del player["optimizer"]
        torch.save(saved, path)
    with pytest.raises(ValueError, match="do not fit: the generator's is of"):
        quiet_trainer(tmp_path, max_epochs=2).fit(
            ToyGAN(optimizer=now), toy_loader(8), ckpt_path=path, weights_only=True
        )


@pytest.mark.parametrize(("which", "told"), [(0, "lasts 3 steps and the run 5"), (1, "is shorter than the run")])
def test_a_schedule_that_ends_before_the_run_is_told(tmp_path: Path, which: int, told: str) -> None:
    def one_cycle(*optimizers: Any) -> Any:
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizers[which], 1e-2, total_steps=3)
        configs: list[Any] = [{"optimizer": optimizer} for optimizer in optimizers]
        configs[which]["lr_scheduler"] = {"scheduler": cycle, "interval": "step"}
        return tuple(configs)

    trainer = quiet_trainer(tmp_path, max_steps=5)
    with pytest.raises(MisconfigurationException, match=told):
        trainer.fit(ToyGAN(schedulers=one_cycle), toy_loader())
    assert trainer.global_step == (0 if which == 0 else 4)


def test_an_optimizer_that_computes_the_loss_itself_is_refused(tmp_path: Path) -> None:
    class Newton(ToyGAN):
        def configure_optimizers(self) -> Any:
            return [torch.optim.LBFGS(self.generator.parameters()), super().configure_optimizers()[1]]

    with pytest.raises(ValueError, match="generator: LBFGS computes the loss again within a step"):
        quiet_trainer(tmp_path).fit(Newton(), toy_loader())


@pytest.mark.parametrize(
    "hook", ["optimizer_step", "optimizer_zero_grad", "on_before_zero_grad", "configure_gradient_clipping"]
)
def test_a_hook_that_is_never_called_is_told(tmp_path: Path, hook: str) -> None:
    def never(*_: Any, **__: Any) -> None:
        pytest.fail(f"{hook} is called, so nothing is to be told")

    with pytest.warns(UserWarning, match=rf"Hooked\.{hook} is never called: "):
        quiet_trainer(tmp_path).fit(type("Hooked", (ToyGAN,), {hook: never})(), toy_loader(4))


def test_a_hook_that_is_called_runs_once_per_update_after_clipping(tmp_path: Path, recwarn: Any) -> None:
    seen: list[Any] = []

    class Looking(ToyGAN):
        def on_before_optimizer_step(self, optimizer: Any) -> None:
            seen.append(optimizer)
            assert torch.nn.utils.get_total_norm([p.grad for p in optimizer.param_groups[0]["params"]]) < 1.001e-3

    trainer = quiet_trainer(tmp_path)
    trainer.fit(Looking(Updates(2, clip_norm=1e-3), Updates(clip_norm=1e-3)), toy_loader(16))
    assert [seen.count(optimizer) for optimizer in trainer.optimizers] == [2, 4]
    assert not [str(each.message) for each in recwarn if "never called" in str(each.message)]
