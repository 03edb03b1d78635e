"""Averages of a player's weights equal Lightning's and torch's where those exist, are used, and are never lost."""

import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.callbacks import StochasticWeightAveraging as LightningSWA
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.resuming import PARTS, MemoryLogger, SaveEverywhere, loader, plateaus, schedulers
from support.state import assert_equal_leaves
from support.toy import ToyGAN, quiet_trainer, toy_loader, weights
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm
from torch.optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn, update_bn

from univnet.gan import (
    ExponentialMovingAverage,
    GANModule,
    StochasticWeightAveraging,
    Updates,
    averaged_weights,
)
from univnet.models import Generator


class Watch(Callback):
    """Records both rates of every micro-batch, and the generator after every update and every epoch."""

    def __init__(self) -> None:
        self.rates: list[tuple[float, ...]] = []
        self.updates: list[nn.Module] = []
        self.epochs: list[nn.Module] = []

    def on_train_batch_start(self, trainer: Any, *args: Any) -> None:
        self.rates.append(tuple(optimizer.param_groups[0]["lr"] for optimizer in trainer.optimizers))

    def on_train_batch_end(self, trainer: Any, module: Any, *args: Any) -> None:
        if trainer.global_step > len(self.updates):
            self.updates.append(copied(module.generator))

    def on_train_epoch_end(self, trainer: Any, module: Any) -> None:
        self.epochs.append(copied(module.generator))


class Validated(ToyGAN):
    """Logs one metric, with noise of training's kind, and keeps the weights seen."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.validated: list[Tensor] = []

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated.append(weights(self.generator))
        self.log_dict({"val/l2": self.generator_loss(batch, self.generate(batch))["l2"]})


def copied(network: nn.Module) -> nn.Module:
    copy = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(next(network.parameters()).dtype)
    copy.load_state_dict(network.state_dict())
    return copy


def fed(models: list[nn.Module], **kwargs: Any) -> dict[str, Tensor]:
    """Return what torch's AveragedModel makes of ``models``."""
    average = AveragedModel(models[0], **kwargs)
    for model in models:
        average.update_parameters(model)
    return average.module.state_dict()


def trained(
    tmp_path: Path, callback: Callback | list[Callback], gan: GANModule | None = None, **kwargs: Any
) -> tuple[Any, Watch, L.Trainer]:
    watch, gan = Watch(), gan or ToyGAN(Updates(3), Updates(2))
    callbacks = [*(callback if isinstance(callback, list) else [callback]), watch]
    trainer = quiet_trainer(tmp_path, callbacks=callbacks, **{"num_sanity_val_steps": 0, "max_epochs": 6, **kwargs})
    validation = toy_loader(8) if isinstance(gan, Validated) else None
    trainer.fit(gan, toy_loader(), validation)
    return gan, watch, trainer


# 1. Equal to Lightning and torch


class Alone(ToyGAN):
    """A generator that nobody judges."""

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return (fake - batch[1]).square().mean()


class OnePlayer(L.LightningModule):
    """The same generator under Lightning's automatic optimization."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = ToyGAN().generator

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return (self.generator(batch[0]) - batch[1]).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), 1e-2, betas=(0.5, 0.9))


@pytest.mark.parametrize("strategy", ["cos", "linear"])
@pytest.mark.parametrize("start", [3, 0.25, 0.0, 1.0])
def test_swa_at_epoch_starts_is_lightnings(strategy: Any, start: Any, tmp_path: Path) -> None:
    settings = {"swa_epoch_start": start, "annealing_epochs": 4, "annealing_strategy": strategy}
    theirs, watch = OnePlayer(), Watch()
    swa = LightningSWA(0.05, **settings)
    quiet_trainer(tmp_path, max_epochs=8, callbacks=[swa, watch]).fit(theirs, toy_loader())
    ours = StochasticWeightAveraging(0.05, average_at="epoch_start", **settings)
    _, watched, _ = trained(tmp_path, ours, Alone(), max_epochs=8)
    assert [rate for rate, _ in watched.rates] == [rate for (rate,) in watch.rates]
    assert ours.n_averaged == swa.n_averaged == 8 - max(int(start * 8 if isinstance(start, float) else start) - 1, 0)
    assert_equal_leaves(ours.averaged, dict(theirs.generator.state_dict()))


def test_swa_at_epoch_ends_is_averaged_model_fed_by_hand(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=3, annealing_epochs=2)
    _, watch, _ = trained(tmp_path, swa)
    assert swa.n_averaged == 4
    assert_equal_leaves(swa.averaged, fed(watch.epochs[2:]))


def test_swa_every_n_updates_and_the_last(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_update_start=5, annealing_updates=4, every_n_updates=3)
    _, watch, _ = trained(tmp_path, swa, max_epochs=4)  # 16 updates: 8, 11, 14, and the last
    assert_equal_leaves(swa.averaged, fed([watch.updates[n - 1] for n in (8, 11, 14, 16)]))


def test_custom_avg_fn(tmp_path: Path) -> None:
    def fn(average: Tensor, weight: Tensor, taken: Tensor) -> Tensor:
        return average + (weight - average) / (taken + 2)

    swa = StochasticWeightAveraging(0.05, swa_epoch_start=2, avg_fn=fn)
    _, watch, _ = trained(tmp_path, swa)
    assert_equal_leaves(swa.averaged, fed(watch.epochs[1:], avg_fn=fn))


@pytest.mark.parametrize(("every", "start"), [(1, 0), (3, 2)])
def test_ema_is_torchs_fed_by_hand(every: int, start: int, tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9, update_every_n_steps=every, update_starting_at_step=start)
    _, watch, _ = trained(tmp_path, ema)
    taken = watch.updates[start + every - 1 :: every]
    assert ema.n_averaged == len(taken) == (24 - start) // every
    assert_equal_leaves(ema.averaged, fed(taken, multi_avg_fn=get_ema_multi_avg_fn(0.9)))


def test_ema_warms_up(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.8, warmup_gamma=2, warmup_power=0.75)
    _, watch, _ = trained(tmp_path, ema, max_epochs=2)
    average = weights(watch.updates[0])
    for t, model in enumerate(watch.updates[1:], 1):
        decay = min(0.8, 1 - (1 + t / 2) ** -0.75)
        average = decay * average + (1 - decay) * weights(model)
    ours = torch.cat([value.flatten() for value in ema.averaged.values()])
    assert torch.allclose(ours, average, rtol=1e-12)
    assert ema.decay_at(1) < ema.decay_at(1000) == 0.8


def test_averages_another_player(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.0, player="discriminator")
    gan, _, _ = trained(tmp_path, ema)
    assert ema.n_averaged == gan.updates["discriminator"].steps == 30
    assert_equal_leaves(ema.averaged, dict(gan.discriminator.state_dict()))


# Rates


@pytest.mark.parametrize("length", [0, 3])
@pytest.mark.parametrize("unit", ["epochs", "updates"])
@pytest.mark.parametrize("strategy", ["cos", "linear"])
def test_the_rate_anneals_as_swalrs(unit: str, strategy: Any, length: int, tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(
        1e-3, swa_epoch_start=2, annealing_strategy=strategy, **{f"annealing_{unit}": length}
    )
    _, watch, _ = trained(tmp_path, swa, ToyGAN(Updates(3), Updates(2)))
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], 1e-2)
    schedule, rates = SWALR(optimizer, 1e-3, length, strategy), []
    for batch in range(10, 60):
        rates.append(optimizer.param_groups[0]["lr"])
        last = batch % 10 == 9
        if last or (unit == "updates" and batch % 10 % 3 == 2):
            optimizer.step()
            schedule.step()
    assert [rate for rate, _ in watch.rates] == [1e-2] * 10 + rates
    assert {rate for _, rate in watch.rates} == {2e-2}


def test_only_the_players_schedulers_are_held(tmp_path: Path) -> None:
    def schedules(generator: Any, discriminator: Any) -> Any:
        def step(optimizer: Any) -> Any:
            scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
            return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

        return step(generator), step(discriminator)

    swa = StochasticWeightAveraging(1e-4, swa_epoch_start=3, annealing_epochs=1)
    gan, watch, trainer = trained(tmp_path, swa, ToyGAN(schedulers=schedules))
    ours, theirs = (config.scheduler for config in trainer.lr_scheduler_configs)
    assert (ours.last_epoch, theirs.last_epoch) == (20, 60)
    assert [rate for rate, _ in watch.rates[20:]] == pytest.approx([1e-2 * 0.9**20] * 10 + [1e-4] * 30)
    assert watch.rates[59][1] == pytest.approx(2e-2 * 0.9**59)
    assert gan.schedules.held == set()


@pytest.mark.parametrize(
    ("settings", "updates"),
    [
        ({"max_epochs": 6, "max_steps": 20}, [12, 16, 20]),  # of 24: it is max_steps that ends training
        ({"max_epochs": -1, "max_steps": 20}, [12, 16, 20]),
        ({"max_epochs": 5, "max_steps": 60}, [8, 12, 16, 20]),  # of 20: it is max_epochs
    ],
)
def test_a_fraction_is_of_what_ends_training(settings: Any, updates: list[int], tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=0.4)
    _, watch, _ = trained(tmp_path, swa, **settings)
    assert_equal_leaves(swa.averaged, fed([watch.updates[n - 1] for n in updates]))


# Weight norm


def small_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(n_mels=4, noise_channels=4, channels=4, strides=(2, 2), dilations=(1, 3), predictor_channels=4)


class Vocoder(ToyGAN):
    """A real UnivNet generator in the toy's place."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.seen = small_generator(), list[dict[str, Tensor]]()

    def generate(self, batch: Any) -> Tensor:
        torch.manual_seed(3)
        return self.generator(torch.randn(2, 4, 6)).mean(-1).double().expand(2, 2)

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return (fake - 0.5).square().mean()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return self.discriminator(torch.cat([batch[0][:2], fake], 1)).square().mean()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.seen.append(plain(self.generator).state_dict())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.output = self.generator(*probe())


def plain(generator: Generator) -> Generator:
    copy = small_generator()
    copy.load_state_dict(generator.state_dict())
    copy.remove_weight_norm()
    return copy


def probe() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(1, 4, 9, generator=generator), torch.randn(1, 4, 9, generator=generator)


def test_effective_weights_are_averaged(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=1, annealing_epochs=0)
    gan, swa_only = Vocoder(), plain(small_generator())
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[swa]).fit(gan, toy_loader(8), toy_loader(4))
    mean = {name: torch.stack([w[name] for w in gan.seen]).mean(0) for name in gan.seen[0]}
    with torch.no_grad():
        swa_only.load_state_dict(swa.averaged)
        by_average = swa_only(*probe())
        swa_only.load_state_dict(mean)
        by_mean = swa_only(*probe())
        swa_only.load_state_dict(gan.seen[-1])
        assert (swa_only(*probe()) - by_mean).abs().max() > 1e-4  # they do differ
        assert (by_average - by_mean).abs().max() < 1e-6
        assert (gan.output - by_mean).abs().max() < 1e-6  # validation's, by weight norm
        swa.apply(gan)
        assert (gan.generator(*probe()) - by_mean).abs().max() < 1e-6
    parameters = dict(gan.generator.named_parameters())
    assert all(parameters[name].requires_grad for name in parameters)


def test_g_and_v_are_averaged_on_demand(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=1, weights="parameters")
    gan = Vocoder()
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[swa]).fit(gan, toy_loader(8), toy_loader(4))
    gan.generator.load_state_dict(swa.averaged)
    assert (gan.output - gan.generator(*probe())).abs().max() < 1e-6


def test_a_parametrization_that_cannot_take_an_average_is_refused(tmp_path: Path) -> None:
    gan = ToyGAN()
    spectral_norm(gan.generator[0])
    weight_norm(gan.generator[2])
    with pytest.raises(MisconfigurationException, match=r"parametrization of 0\.weight cannot .* weights='parameters'"):
        quiet_trainer(tmp_path, callbacks=[ExponentialMovingAverage()]).fit(gan, toy_loader())
    ema = ExponentialMovingAverage(weights="parameters")
    quiet_trainer(tmp_path, callbacks=[ema]).fit(gan, toy_loader())
    gan.generator.load_state_dict(ema.averaged)


def test_tied_weights_survive_validation(tmp_path: Path) -> None:
    gan = Validated()
    gan.generator = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)).double()
    gan.generator[1].weight = gan.generator[0].weight
    ema = ExponentialMovingAverage(0.9)
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[ema]).fit(gan, toy_loader(), toy_loader(4))
    assert gan.generator[1].weight is gan.generator[0].weight
    assert torch.equal(ema.averaged["0.weight"], ema.averaged["1.weight"])
    assert not torch.equal(ema.averaged["0.weight"], gan.generator[0].weight)


def test_half_precision_is_averaged_in_single(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.999)
    gan, _, _ = trained(tmp_path, ema, Validated(dtype=torch.bfloat16), precision="bf16-true")
    assert {value.dtype for value in ema.averaged.values()} == {torch.float32}
    assert gan.generator[0].weight.dtype == torch.bfloat16


# Used


def test_validation_sees_the_average_and_leaves_the_raw_weights_bit_for_bit(tmp_path: Path) -> None:
    logger = MemoryLogger()
    ema = ExponentialMovingAverage(0.9, validate_raw=True)
    gan, watch, _ = trained(tmp_path, ema, Validated(noise=0.5), logger=logger, max_epochs=3)
    averages = [fed(watch.updates[: 10 * n], multi_avg_fn=get_ema_multi_avg_fn(0.9)) for n in (1, 2, 3)]
    for n, average in enumerate(averages):
        averaged, raw = gan.validated[4 * n], gan.validated[4 * n + 1]
        assert torch.equal(averaged, torch.cat([value.flatten() for value in average.values()]))
        assert torch.equal(raw, weights(watch.updates[10 * n + 9]))
    rows = [row for _, row in logger.rows if "val/l2" in row]
    assert len(rows) == 3
    assert all(row["val/l2"] != row["val_raw/l2"] for row in rows)

    alone = MemoryLogger()  # without any average, what is called raw above is plainly validated
    bare, _, _ = trained(tmp_path, [], Validated(noise=0.5), logger=alone, max_epochs=1)
    torch.manual_seed(1)
    bare, _, _ = trained(tmp_path, [], Validated(noise=0.5), logger=alone, max_epochs=3)
    torch.manual_seed(1)
    again, _, _ = trained(tmp_path, ema, Validated(noise=0.5), logger=logger, max_epochs=3)
    assert torch.equal(weights(bare), weights(again))
    assert [r["val/l2"] for _, r in alone.rows[-1:]] == [r["val_raw/l2"] for _, r in logger.rows[-1:]]


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


def test_a_checkpoint_is_validated_as_it_was(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9)
    _, _, trainer = trained(tmp_path, ema, Validated())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh = quiet_trainer(tmp_path, callbacks=[ExponentialMovingAverage(0.9, validate_raw=True)])
    logged = fresh.validate(
        Validated(), toy_loader(8), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=True
    )[0]
    assert logged["val/l2"] == float(trainer.callback_metrics["val/l2"])
    assert logged["val_raw/l2"] != logged["val/l2"]
    assert not fresh.lightning_module.generator[0].weight.is_inference()
    raw = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert_equal_leaves(dict(fresh.lightning_module.state_dict()), raw)


def test_both_averages_keep_to_themselves_and_swas_is_used_first(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=3, annealing_epochs=1)
    ema = ExponentialMovingAverage(0.9)
    gan, watch, trainer = trained(tmp_path, [ema, swa], Validated(), max_epochs=4)
    assert_equal_leaves(swa.averaged, fed(watch.epochs[2:]))
    assert_equal_leaves(ema.averaged, fed(watch.updates, multi_avg_fn=get_ema_multi_avg_fn(0.9)))
    flat = [torch.cat([v.flatten() for v in average.averaged.values()]) for average in (swa, ema)]
    assert torch.equal(gan.validated[-1], flat[0])
    first = fed(watch.updates[:10], multi_avg_fn=get_ema_multi_avg_fn(0.9))
    assert torch.equal(gan.validated[0], torch.cat([v.flatten() for v in first.values()]))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert_equal_leaves(averaged_weights(checkpoint), swa.averaged)
    assert_equal_leaves(averaged_weights(checkpoint, kind="ema"), ema.averaged)
    assert averaged_weights(checkpoint, "discriminator") is None


def test_validation_of_the_raw_weights_alone(tmp_path: Path) -> None:
    gan, watch, _ = trained(tmp_path, ExponentialMovingAverage(0.9, use_in_validation=False), Validated())
    assert torch.equal(gan.validated[-1], weights(watch.epochs[-1]))


# Endings


class Stop(Callback):
    """Ends a run in the middle of its fourth epoch."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 35:  # two updates after the epoch's beginning
            if self.how == "stop":
                trainer.should_stop = True
            else:
                raise {"exception": RuntimeError, "interrupt": KeyboardInterrupt}[self.how]("now")


@pytest.mark.parametrize("how", ["stop", "exception", "interrupt", "max_steps"])
def test_an_early_end_keeps_the_average(how: str, tmp_path: Path) -> None:
    swa, watch = StochasticWeightAveraging(0.05, swa_epoch_start=2, annealing_epochs=2), Watch()
    callbacks = [swa, watch] + [Stop(how)] * (how != "max_steps")
    limit = {"max_steps": 14} if how == "max_steps" else {}
    trainer = quiet_trainer(tmp_path, max_epochs=9, callbacks=callbacks, **limit)
    gan = ToyGAN(Updates(3), Updates(2))
    if how in ("exception", "interrupt"):
        with pytest.raises((RuntimeError, SystemExit)):
            trainer.fit(gan, toy_loader())
    else:
        trainer.fit(gan, toy_loader())
    last = [watch.updates[-1]] if how in ("stop", "max_steps") else []
    assert len(watch.updates) == 14
    assert_equal_leaves(swa.averaged, fed([watch.updates[7], watch.updates[11], *last]))
    assert torch.equal(weights(gan.generator), weights(watch.updates[-1]))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert_equal_leaves(averaged_weights(torch.load(tmp_path / "a.ckpt", weights_only=True)), swa.averaged)


def test_early_stopping_and_an_exception_in_validation(tmp_path: Path) -> None:
    class Fails(Validated):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            if self.current_epoch == 2:
                raise RuntimeError("now")

    swa, ema = StochasticWeightAveraging(0.05, swa_epoch_start=2), ExponentialMovingAverage(0.9)
    stopping = EarlyStopping("val/l2", min_delta=10.0, patience=1)
    _, watch, trainer = trained(tmp_path, [swa, stopping], Validated())
    assert trainer.current_epoch == 2
    assert_equal_leaves(swa.averaged, fed(watch.epochs[1:]))
    gan = Fails()
    with pytest.raises(RuntimeError, match="now"):
        trained(tmp_path, [watch := Watch(), ema], gan)
    assert torch.equal(weights(gan.generator), weights(watch.updates[-1]))
    assert ema.n_averaged == 30


def test_an_average_of_nothing_is_refused(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=5)
    gan, _, trainer = trained(tmp_path, swa, Validated(), max_epochs=2)
    for get in (lambda: swa.averaged, lambda: swa.apply(gan)):
        with pytest.raises(ValueError, match="StochasticWeightAveraging of the generator has no updates yet"):
            get()
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert averaged_weights(checkpoint) is None
    with pytest.raises(ValueError, match="swa average of the generator has no updates yet"):
        averaged_weights(checkpoint, kind="swa")


def test_all_mistakes_at_once() -> None:
    with pytest.raises(MisconfigurationException) as refused:
        StochasticWeightAveraging([0.2, 1], swa_epoch_start=-1, annealing_strategy="x", every_n_updates=0)  # type: ignore
    for part in ("positive float, or a list of positive floats", ">0 integer or a float between 0 and 1", "'x'", "≥ 1"):
        assert part in str(refused.value)
    for start in (0, 1.5):
        with pytest.raises(MisconfigurationException, match=">0 integer or a float between 0 and 1"):
            StochasticWeightAveraging(0.1, swa_epoch_start=start)
    with pytest.raises(MisconfigurationException, match=r"decay .* update_every_n_steps .* warmup_gamma"):
        ExponentialMovingAverage(1.5, update_every_n_steps=0, warmup_gamma=-1)


def test_what_does_not_fit_the_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"no player 'critic' .* generator, discriminator"):
        trained(tmp_path, ExponentialMovingAverage(player="critic"))
    with pytest.raises(MisconfigurationException, match="2 rates, but the generator's optimizer 1 groups"):
        trained(tmp_path, StochasticWeightAveraging([0.1, 0.2]))
    with pytest.raises(MisconfigurationException, match="needs an end of training"):
        trained(tmp_path, StochasticWeightAveraging(0.1), max_epochs=-1)
    with pytest.raises(MisconfigurationException, match="OnePlayer has no player 'generator'"):
        quiet_trainer(tmp_path, callbacks=[ExponentialMovingAverage()]).fit(OnePlayer(), toy_loader())


# BatchNorm


class Normed(ToyGAN):
    def __init__(self, **kwargs: Any) -> None:
        super().__init__(Updates(3), Updates(2), **kwargs)
        self.generator = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Tanh(), nn.Linear(8, 2)).double()
        self.discriminator = nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.Linear(8, 1)).double()


@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_batch_norm_is_estimated_anew(player: str, tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, player=player, swa_epoch_start=3)
    gan = Normed()
    trainer = quiet_trainer(tmp_path, max_epochs=5, callbacks=[swa])
    trainer.fit(gan, toy_loader())
    by_hand = Normed()
    by_hand.load_state_dict(gan.state_dict())
    getattr(by_hand, player).load_state_dict(swa.averaged)
    by_hand.train()
    if player == "generator":
        update_bn([x for x, _ in toy_loader()], by_hand.generator)
    else:
        inputs = [torch.cat([x, z], 1) for x, y in toy_loader() for z in (y, by_hand.generator(x).detach())]
        update_bn(inputs, by_hand.discriminator)
    estimated = getattr(by_hand, player).state_dict()
    for name, value in swa.averaged.items():
        assert torch.allclose(value.double(), estimated[name].double(), rtol=1e-10), name
    assert not torch.allclose(swa.averaged["1.running_var"], getattr(gan, player)[1].running_var)


def test_estimation_changes_nothing_of_training(tmp_path: Path) -> None:
    class Seen(Normed):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            self.log("val/x", self.generator(batch[0]).mean())

    def fit(*callbacks: Callback) -> tuple[Any, Tensor]:
        torch.manual_seed(3)
        gan = Seen(noise=0.5)
        trainer = quiet_trainer(tmp_path, max_epochs=3, callbacks=list(callbacks), val_check_interval=4)
        trainer.fit(gan, loader_in_double(), toy_loader(8))
        return dict(gan.state_dict()), torch.get_rng_state()

    bare, averaged = fit(), fit(ExponentialMovingAverage(0.9, bn_batches=2))
    assert_equal_leaves(bare[0], averaged[0])
    assert torch.equal(bare[1], averaged[1])


def loader_in_double() -> Any:
    from support.toy import toy_data

    from univnet.data import ResumableDataLoader

    return ResumableDataLoader(toy_data(), batch_size=4, shuffle=True)


# Resume


class Resumed(ToyGAN):
    def __init__(self, *args: Any, normed: bool, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if normed:
            self.generator.append(nn.BatchNorm1d(2))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/l2", (self.generator(batch[0]) - batch[1]).square().mean())


MODES: dict[str, dict[str, Any]] = {
    "epoch_end": {"swa_epoch_start": 2, "annealing_epochs": 2},
    "epoch_start": {"swa_epoch_start": 2, "annealing_epochs": 2, "average_at": "epoch_start"},
    "updates": {"swa_update_start": 3, "annealing_updates": 5, "every_n_updates": 2},
    "batch_norm": {"swa_epoch_start": 0.5, "annealing_updates": 3},
}


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


def test_a_new_run_starts_a_new_average(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9)
    trained(tmp_path, ema)
    trained(tmp_path, ema, max_epochs=1)
    assert ema.n_averaged == 4
    assert math.isclose(ema.decay_at(0), 0.9)
