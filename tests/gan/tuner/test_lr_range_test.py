"""The range test against Lightning's own, and against training by hand."""

import subprocess
import sys
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.tuner import Tuner as LightningTuner
from support import PROGRAMS, lr_find_ddp_run
from support.sweeps import OnePlayer, Plain
from support.toy import ToyGAN, quiet_trainer, toy_loader, weights
from torch import Tensor, nn
from torch.amp import GradScaler

from univnet.gan import Tuner, Updates
from univnet.gan.tuner.lr_range_test import sweep_rates


@pytest.mark.parametrize("mode", ["exponential", "linear"])
def test_one_player_is_lightnings(mode: str, tmp_path: Path) -> None:
    plain, points, loader = Plain(), 40, toy_loader(6400, 160)
    options = {"min_lr": 1e-3, "max_lr": 0.5, "mode": mode, "early_stop_threshold": None, "update_attr": False}
    theirs = LightningTuner(quiet_trainer(tmp_path)).lr_find(plain, loader, num_training=points, **options)
    # Lightning leaves out the second of points + 1 rates.
    rates = sweep_rates(1e-3, 0.5, points + 1, mode)
    assert theirs.results["lr"] == [rates[0], *rates[2:]]
    ours = Tuner(quiet_trainer(tmp_path)).lr_find(
        OnePlayer(), loader, rates=theirs.results["lr"], smoothing=0, **options
    )
    assert ours.results["lr"] == theirs.results["lr"]
    assert ours.results["loss"] == plain.losses
    theirs.results = ours.results
    for skips in ((10, 1), (0, 5)):
        assert ours.suggestion(*skips, method="steepest") == theirs.suggestion(*skips)
    smooth = Tuner(quiet_trainer(tmp_path)).lr_find(OnePlayer(), loader, num_training=points, **options)
    theirs.results = smooth.results
    assert smooth.suggestion(method="steepest") == theirs.suggestion()


class Recorded(ToyGAN):
    """Writes down the weights with which every micro-batch begins."""

    seen: ClassVar[list[Tensor]] = []

    def generate(self, batch: Any) -> Tensor:
        self.seen.append(torch.cat([p.detach().flatten() for p in self.parameters()]))
        return super().generate(batch)


class ByHand(Callback):
    """Sets one player's rate before each of its updates, and nothing else."""

    def __init__(self, player: str, rates: list[float]) -> None:
        self.player, self.rates = player, rates

    def on_train_batch_start(self, trainer: Any, module: Any, *args: Any) -> None:
        player = module.updates[self.player]
        player.optimizer.param_groups[0]["lr"] = self.rates[min(player.steps, len(self.rates) - 1)]


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_the_sweeps_training_is_the_real_one(player: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = {"generator": Updates(4, clip_norm=0.5), "discriminator": Updates({0: 4, 1: 2}, clip_value=0.02)}
    rates = sweep_rates(1e-4, 0.3, 12)
    runs = []
    for swept in (True, False):
        monkeypatch.setattr(Recorded, "seen", [])
        torch.manual_seed(5)
        model = Recorded(*settings.values(), noise=0.1)
        if swept:
            found = Tuner(quiet_trainer(tmp_path)).lr_find(
                model, toy_loader(80, 4), optimizer=player, rates=rates, update_attr=False, early_stop_threshold=None
            )
        else:
            trainer = quiet_trainer(tmp_path, max_epochs=-1, callbacks=[ByHand(player, rates)], max_steps=20)
            trainer.fit(model, toy_loader(80, 4))
        runs.append(Recorded.seen)
    length = len(runs[0])
    assert found.results["lr"] == rates
    assert length >= 4 * 12 if player == "generator" else length > 24
    assert length <= len(runs[1])
    assert all(torch.equal(one, other) for one, other in zip(runs[0], runs[1], strict=False))


def test_a_point_is_a_windows_mean_loss(tmp_path: Path) -> None:
    losses: list[float] = []

    class Written(ToyGAN):
        def generator_loss(self, batch: Any, fake: Tensor) -> dict[str, Tensor]:
            terms = super().generator_loss(batch, fake)
            losses.append(terms["l2"].item())
            return terms

    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        Written(Updates(3)), toy_loader(), num_training=6, smoothing=0, monitor="generator/l2", update_attr=False,
        early_stop_threshold=None,
    )  # fmt: skip
    # Ten micro-batches an epoch: three full windows and a short one, which counts as what it is.
    means = [np.mean(losses[i:j]) for i, j in [(0, 3), (3, 6), (6, 9), (9, 10), (10, 13), (13, 16)]]
    assert found.results["loss"] == pytest.approx(means, rel=1e-12)


def test_joint_rates_keep_their_ratio_and_groups_theirs(tmp_path: Path) -> None:
    class Groups(ToyGAN):
        seen: ClassVar[list[list[float]]] = []

        def configure_optimizers(self) -> Any:
            first, last = self.generator[0].parameters(), self.generator[2].parameters()
            groups = [{"params": first, "lr": 1e-3}, {"params": last, "lr": 2e-3}]
            return [torch.optim.SGD(groups), torch.optim.SGD(self.discriminator.parameters(), 4e-3)]

        def generate(self, batch: Any) -> Tensor:
            self.seen.append([group["lr"] for optimizer in self.optimizers() for group in optimizer.param_groups])
            return super().generate(batch)

    trainer = quiet_trainer(tmp_path)
    found = Tuner(trainer).lr_find(Groups(), toy_loader(), optimizer="joint", num_training=5, update_attr=False)
    rates = sweep_rates(1e-8, 1, 5)
    assert np.array(Groups.seen) == pytest.approx(np.outer(rates, [1, 2, 4]))
    assert found.ratio == 4
    assert found.results["discriminator_lr"] == pytest.approx([4 * rate for rate in rates])
    Tuner(trainer).lr_find(Groups(), toy_loader(), optimizer="joint", num_training=5, ratio=0.5, update_attr=False)
    assert np.array(Groups.seen[5:])[:, 2] == pytest.approx(np.array(rates) / 2)


def test_repeats_draw_other_numbers_from_the_same_start(tmp_path: Path) -> None:
    from univnet.data import ResumableDataLoader

    for loader, noise in ((toy_loader(), 0.5), (ResumableDataLoader(toy_loader().dataset, 4, shuffle=True), 0.0)):
        runs = []
        for repeats in (1, 3):
            torch.manual_seed(2)
            found = Tuner(quiet_trainer(tmp_path)).lr_find(
                ToyGAN(noise=noise), loader, num_training=9, repeats=repeats, smoothing=0, update_attr=False,
                early_stop_threshold=None,
            )  # fmt: skip
            runs.append(found.curves["generator"])
        one, three = runs
        assert one.runs == []
        assert three.runs[0] == one.raw
        assert len({run[0] for run in three.runs}) == 3
        assert three.raw == pytest.approx(np.mean(three.runs, axis=0))


def test_it_starts_from_a_checkpoint_as_training_would(tmp_path: Path) -> None:
    path, losses = tmp_path / "open.ckpt", []

    class Written(ToyGAN):
        def generator_loss(self, batch: Any, fake: Tensor) -> dict[str, Tensor]:
            terms = super().generator_loss(batch, fake)
            losses.append(terms["loss"].item())
            return terms

    def new() -> Written:
        return Written(noise=0.2)

    from univnet.data import ResumableDataLoader

    def loader() -> ResumableDataLoader:
        return ResumableDataLoader(toy_loader(80).dataset, 4, shuffle=True)

    trainer = quiet_trainer(tmp_path, max_steps=7, max_epochs=-1)
    trainer.fit(new(), loader())
    trainer.save_checkpoint(path)
    losses.clear()
    quiet_trainer(tmp_path, max_steps=19, max_epochs=-1).fit(new(), loader(), ckpt_path=path, weights_only=True)
    real = list(losses)
    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        new(), loader(), rates=[1e-2] * 12, smoothing=0, early_stop_threshold=None, update_attr=False, ckpt_path=path
    )
    assert len(real) == 12
    assert found.results["loss"] == real


def test_a_checkpoint_with_more_than_plain_values_is_loaded_on_request_only(tmp_path: Path) -> None:
    path, trainer = tmp_path / "more.ckpt", quiet_trainer(tmp_path)
    trainer.fit(ToyGAN(), toy_loader())
    trainer.save_checkpoint(path)
    torch.save(torch.load(path, weights_only=True) | {"note": Path("more")}, path)
    tuner = Tuner(quiet_trainer(tmp_path))
    options: dict[str, Any] = {"rates": [1e-2] * 2, "update_attr": False, "ckpt_path": path}
    with pytest.raises(UnpicklingError, match="weights_only"):
        tuner.lr_find(ToyGAN(), toy_loader(), **options)
    assert len(tuner.lr_find(ToyGAN(), toy_loader(), weights_only=False, **options).results["lr"]) == 2


def test_two_ranks_see_what_one_sees_on_concatenated_batches(tmp_path: Path) -> None:
    script = PROGRAMS / "lr_find_ddp_run.py"
    done = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    one, other = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2))
    assert one["curves"] == other["curves"]
    assert one["untouched"]
    assert other["untouched"]
    settings, options = (Updates(2, clip_norm=1.0), Updates(3)), lr_find_ddp_run.OPTIONS
    alone, trainer = ToyGAN(*settings, optimizer="sgd"), quiet_trainer(tmp_path)
    loader = toy_loader(80, batch_size=8)
    for optimizer in ("joint", "both"):
        found = Tuner(trainer).lr_find(alone, loader, optimizer=optimizer, **options)
        for name, curve in found.curves.items():
            lr, raw, ended = one["curves"][optimizer][name]
            assert lr == curve.lr
            assert ended == curve.ended
            assert raw == pytest.approx(curve.raw, rel=1e-6)
    trainer.fit(alone, loader)
    torch.testing.assert_close(one["weights"], weights(alone), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision(precision: str, tmp_path: Path) -> None:
    plugin = MixedPrecision(precision, "cpu", GradScaler("cpu", init_scale=16.0) if precision == "16-mixed" else None)
    loader = toy_loader(640, 32, dtype=torch.float32)
    curves = []
    for plugins in ([plugin], []):
        found = Tuner(quiet_trainer(tmp_path, plugins=plugins)).lr_find(
            ToyGAN(dtype=torch.float32), loader, num_training=20, min_lr=1e-4, max_lr=0.1, update_attr=False
        )
        curves.append(found.results["loss"])
    assert curves[0] == pytest.approx(curves[1], rel=0.03)
    assert curves[0] != curves[1]


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
