"""The range test against Lightning's own, against analysis, and against training by hand."""

import math
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import lightning as L
import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback, LearningRateFinder
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.tuner import Tuner as LightningTuner
from lightning.pytorch.tuner.lr_finder import _LRFinder
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support import PROGRAMS, lr_find_ddp_run
from support.toy import ToyGAN, quiet_trainer, toy_loader, weights
from torch import Tensor, nn
from torch.amp import GradScaler

from univnet.gan import Collapse, GANModule, Tuner, Updates
from univnet.gan.tuner.lr_range_test import diverges, sweep_rates


class Plain(L.LightningModule):
    """One player under Lightning's automatic optimization; it writes down the losses that Lightning smooths."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.lr = ToyGAN().generator, 1e-3
        self.losses: list[float] = []

    def training_step(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = (self.net(batch[0]) - batch[1]).square().mean()
        self.losses.append(loss.item())
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), self.lr)


class OnePlayer(ToyGAN):
    """The same as a GAN whose discriminator never plays."""

    def generator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> Tensor:
        return (fake - batch[1]).square().mean()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> None:
        return None

    def configure_optimizers(self) -> Any:
        return [torch.optim.AdamW(net.parameters(), 1e-3) for net in (self.generator, self.discriminator)]


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


class Quadratic(GANModule):
    """Two players who do not meet: x and y on parabolas of curvature a and b, by plain gradient descent."""

    def __init__(self, curvatures: tuple[float, float], momentum: float = 0.0) -> None:
        super().__init__()
        self.generator, self.discriminator = (nn.Linear(1, 1, bias=False, dtype=torch.float64) for _ in range(2))
        self.curvatures, self.momentum = curvatures, momentum
        for net in (self.generator, self.discriminator):
            nn.init.constant_(net.weight, 3.0)

    def generate(self, batch: Any) -> Tensor:
        return self.generator.weight

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return self.curvatures[0] / 2 * fake.square().sum()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return self.curvatures[1] / 2 * self.discriminator.weight.square().sum()

    def configure_optimizers(self) -> Any:
        nets = self.generator, self.discriminator
        return [
            torch.optim.SGD(net.parameters(), 0.01 / curvature, momentum=self.momentum)
            for net, curvature in zip(nets, self.curvatures, strict=True)
        ]


@pytest.mark.parametrize("curvatures", [(1.0, 1.0), (300.0, 1.0), (1.0, 300.0), (0.02, 7.0)])
@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_the_divergence_rate_is_found(
    curvatures: tuple[float, float], player: str, momentum: float, tmp_path: Path
) -> None:
    curvature = dict(zip(("generator", "discriminator"), curvatures, strict=True))[player]
    bound = 2 * (1 + momentum) / curvature  # of gradient descent, with heavy-ball momentum too
    points = 80
    found = Tuner(quiet_trainer(tmp_path)).lr_find(
        Quadratic(curvatures, momentum), toy_loader(400, 4), optimizer=player, min_lr=bound / 300, max_lr=30 * bound,
        num_training=points, smoothing=0, update_attr=False, collapse=Collapse(loss=0),
    )  # fmt: skip
    [curve] = found.curves.values()
    step = 9000 ** (1 / (points - 1))
    assert curve.ended == f"{player}/loss diverged"
    if momentum == 0:  # with it the loss of one update does not tell: it swings
        assert bound / step <= curve.divergence <= bound * step
    assert curve.lr[-1] <= bound * step**12


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


class Tuned(ToyGAN):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.save_hyperparameters({"generator_lr": 1e-3, "discriminator_lr": 2e-3})

    def configure_optimizers(self) -> Any:
        rates = self.hparams["generator_lr"], self.hparams["discriminator_lr"]
        return [torch.optim.AdamW(n.parameters(), lr) for n, lr in zip(self.children(), rates, strict=True)]


def test_the_second_test_runs_at_the_rate_just_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    model, trainer, loader = Tuned(), quiet_trainer(tmp_path), toy_loader(6400, 64)

    def generate(self: Tuned, batch: Any) -> Tensor:
        rates.append(self.optimizers()[0].param_groups[0]["lr"])
        return ToyGAN.generate(self, batch)

    monkeypatch.setattr(Tuned, "generate", generate)
    found = Tuner(trainer).lr_find(model, loader, optimizer="both", min_lr=1e-5, num_training=60)
    suggested = found.suggestions()
    assert list(suggested) == ["generator", "discriminator"]
    assert None not in suggested.values()
    assert dict(model.hparams) == {f"{player}_lr": rate for player, rate in suggested.items()}
    first, second = found.curves.values()
    assert rates == [*first.lr, *[suggested["generator"]] * len(second.lr)]
    found = Tuner(trainer).lr_find(
        model, loader, optimizer="discriminator", min_lr=1e-5, num_training=60, attr_name="discriminator_lr"
    )
    assert model.hparams["discriminator_lr"] == found.suggestion()


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
        new(), loader(), rates=[1e-2] * 12, smoothing=0, update_attr=False, ckpt_path=path
    )
    assert len(real) == 12
    assert found.results["loss"] == real


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


class Overwhelming(ToyGAN):
    """A discriminator that is told which is which, so that it wins as fast as it learns."""

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        x, y = batch
        real, fake = (self.discriminator(torch.cat([x, torch.full_like(y, label)], 1)) for label in (1.0, -1.0))
        loss = (1 - real).square().mean() + fake.square().mean()
        return {"loss": loss, "real_score": real.mean(), "fake_score": fake.mean()}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (Collapse(loss=0.1, separation=None), "its loss fell to"),
        (Collapse(loss=0.0, separation=0.7), "it scores real examples"),
    ],
)
def test_the_suggestion_stays_below_the_discriminators_collapse(rule: Collapse, said: str, tmp_path: Path) -> None:
    model, loader = Overwhelming(), toy_loader(6400, 64)
    options: dict[str, Any] = {"update_attr": False, "collapse": rule, "min_lr": 1e-5, "max_lr": 1.0}
    found = Tuner(quiet_trainer(tmp_path)).lr_find(model, loader, optimizer="discriminator", **options)
    curve = found.curves["discriminator"]
    assert said in curve.ended
    assert curve.limit == curve.lr[-1]
    assert len(curve.lr) < 100
    rates = [rate for rate in curve.suggestions(skip_end=0).values() if rate is not None]
    assert len(rates) >= 4
    assert max(rates) < curve.limit
    joint = Tuner(quiet_trainer(tmp_path)).lr_find(model, loader, optimizer="joint", ratio=2.0, **options)
    assert joint.curves["generator"].limit == pytest.approx(joint.curves["discriminator"].limit / 2)


def test_losses_that_are_not_finite_end_the_test(tmp_path: Path) -> None:
    class Breaks(ToyGAN):
        def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
            loss = super().generator_loss(batch, fake)["loss"]
            return loss * (math.nan if self.updates["generator"].micro_batches in (5, 9, 10, 11) else 1.0)

    found = Tuner(quiet_trainer(tmp_path)).lr_find(Breaks(), toy_loader(), num_training=50, update_attr=False)
    [curve] = found.curves.values()
    assert [i for i, loss in enumerate(curve.raw) if math.isnan(loss)] == [5, 9, 10, 11]
    assert len(curve.raw) == 12
    assert curve.ended == "generator/loss was not finite 3 times in a row"


@pytest.mark.parametrize("scale", [1.0, -1.0])
def test_when_losses_diverge(scale: float) -> None:
    assert not any(diverges([scale] * n, 4.0, s) for n in range(60) for s in (0, 0.8, 0.98))  # Lightning: -1 "diverges"
    rising = [scale] * 40 + [scale + 10.0] * 10
    assert diverges(rising, 4.0, 0.8)
    assert not diverges(rising, None, 0.8)
    assert not diverges([scale] * 40 + [math.nan] * 3, 4.0, 0.8)
    assert not diverges([100.0, *[scale] * 40], 4.0, 0.8)  # it has fallen, not risen


def test_the_default_threshold_is_lightnings_for_positive_losses() -> None:
    assert not diverges([2.0, 1.0, 3.9], 4.0, 0)
    assert diverges([2.0, 1.0, 4.1], 4.0, 0)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"optimizer": "adam"}, ValueError, "optimizer must be one of generator, discriminator, joint, both, grid"),
        (
            {"min_lr": 1.0, "max_lr": 0.1, "mode": "x", "num_training": 1},
            ValueError,
            "mode .*; the rates .*; num_train",
        ),
        ({"repeats": 0, "smoothing": 1, "suggest": "x", "grid_size": 1}, ValueError, "repeats .*; smoothing .*; sugg"),
        ({"monitor": "generator/x"}, ValueError, "'generator/x' is not logged; name one of discriminator/fake, disc"),
        ({"method": "validate"}, MisconfigurationException, "give method='fit'"),
        ({"update_attr": True}, AttributeError, "ToyGAN has no attribute or hyperparameter generator_lr to set"),
        ({"update_attr": True, "optimizer": "both"}, AttributeError, "generator_lr and no discriminator_lr"),
        ({"update_attr": True, "optimizer": "both", "attr_name": "lr"}, MisconfigurationException, "a mapping of both"),
    ],
)
def test_mistakes_are_told(options: dict[str, Any], error: type, message: str, tmp_path: Path) -> None:
    with pytest.raises(error, match=message):
        Tuner(quiet_trainer(tmp_path)).lr_find(ToyGAN(), toy_loader(), **({"update_attr": False} | options))


def test_more_mistakes_are_told(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="the discriminator makes no updates yet"):
        Tuner(quiet_trainer(tmp_path)).lr_find(OnePlayer(), toy_loader(), optimizer="discriminator", update_attr=False)
    with pytest.warns(UserWarning, match="the discriminator makes no updates yet"):
        found = Tuner(quiet_trainer(tmp_path)).lr_find(OnePlayer(), toy_loader(), optimizer="both", update_attr=False)
    assert list(found.curves) == ["generator"]  # which is not lost
    with pytest.raises(MisconfigurationException, match="Plain is no univnet"):
        Tuner(quiet_trainer(tmp_path)).lr_find(Plain(), toy_loader())
    with pytest.raises(MisconfigurationException, match="LearningRateFinder: leave it out"):
        Tuner(quiet_trainer(tmp_path, callbacks=[LearningRateFinder()])).lr_find(ToyGAN(), toy_loader())
    with pytest.warns(UserWarning, match="fast_dev_run"):
        assert Tuner(quiet_trainer(tmp_path, fast_dev_run=True)).lr_find(ToyGAN(), toy_loader()) is None


def test_lightnings_finder_object_reads_our_results() -> None:
    # Lightning's own test of its suggestion: the sine falls fastest at π.
    from univnet.gan import LRCurve

    lr = torch.linspace(0, 2 * math.pi, 1000)
    curve = LRCurve("generator", "sine", lr.tolist(), lr.sin().tolist())
    assert curve.suggestion(2, 2, "steepest") == pytest.approx(math.pi, abs=1e-2)
    theirs = _LRFinder("exponential", 1e-6, 0.1, 100)
    theirs.results = curve.results
    assert theirs.suggestion(2, 2) == curve.suggestion(2, 2, "steepest")
