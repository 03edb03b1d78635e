"""Any torch scheduler for either player: once an update or once an epoch, plateaus too."""

from functools import partial
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    ExponentialLR,
    LinearLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from univnet.gan import Updates


class Rates(ToyGAN):
    """Records both learning rates before each micro-batch."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.rates: list[tuple[float, float]] = []

    def on_train_batch_start(self, *args: Any) -> None:
        self.rates.append(tuple(o.param_groups[0]["lr"] for o in self.optimizers()))

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.log("val/flat", 1.0)


def by_torch(make: Any, steps: int, lr: float) -> list[float]:
    """Return the rates that ``make``'s scheduler gives when it is stepped ``steps`` times."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr)
    scheduler, seen = make(optimizer), [lr]
    for _ in range(steps):
        optimizer.step()
        scheduler.step()
        seen.append(optimizer.param_groups[0]["lr"])
    return seen


def sequence(optimizer: Any) -> SequentialLR:
    parts = [LinearLR(optimizer, 1.0, 0.5, 3), CosineAnnealingLR(optimizer, 5)]
    return SequentialLR(optimizer, parts, milestones=[3])


def test_each_player_steps_its_own_schedule(tmp_path: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        each_update = {"scheduler": sequence(generator), "interval": "step", "frequency": 2}
        return (
            {"optimizer": generator, "lr_scheduler": each_update},
            {"optimizer": discriminator, "lr_scheduler": ExponentialLR(discriminator, 0.5)},
        )

    gan = Rates(Updates(3), Updates(2), lr=(0.1, 0.2), schedulers=schedulers)
    quiet_trainer(tmp_path, max_epochs=3).fit(gan, toy_loader())
    assert gan.updates["generator"].steps == 12
    stepped = by_torch(sequence, 6, 0.1)
    updates = [epoch * 4 + micro_batch // 3 for epoch in range(3) for micro_batch in range(10)]
    assert [rate for rate, _ in gan.rates] == [stepped[update // 2] for update in updates]
    assert [rate for _, rate in gan.rates] == [0.2] * 10 + [0.1] * 10 + [0.05] * 10


def test_lists_of_optimizers_and_schedulers(tmp_path: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        every = {"scheduler": StepLR(discriminator, 1, 0.1), "interval": "step"}
        return [generator, discriminator], [StepLR(generator, 1, 0.5), every]

    gan = Rates(lr=(1.0, 1.0), schedulers=schedulers)
    quiet_trainer(tmp_path, max_epochs=2, limit_train_batches=2).fit(gan, toy_loader())
    assert [rate for rate, _ in gan.rates] == [1.0, 1.0, 0.5, 0.5]
    assert [rate for _, rate in gan.rates] == pytest.approx([1.0, 0.1, 0.01, 0.001])


@pytest.mark.parametrize(("interval", "monitor"), [("epoch", "val/flat"), ("step", "discriminator/nonfinite")])
def test_plateau_with_a_monitor(interval: str, monitor: str, tmp_path: Any, recwarn: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        plateau = ReduceLROnPlateau(generator, factor=0.5, patience=0)
        watching = {"scheduler": plateau, "interval": interval, "monitor": monitor}
        return {"optimizer": generator, "lr_scheduler": watching}, {"optimizer": discriminator}

    gan = Rates(Updates(), Updates(), lr=(1e-2, 1e-2), schedulers=schedulers)
    trainer = quiet_trainer(tmp_path, max_epochs=3, limit_train_batches=4)
    trainer.fit(gan, toy_loader(), toy_loader(4))
    expected = {
        "epoch": [1e-2] * 8 + [5e-3] * 4,  # the flat metric's first value is its best
        "step": [1e-2, *(1e-2 * 0.5**n for n in range(11))],
    }
    assert [rate for rate, _ in gan.rates] == pytest.approx(expected[interval])
    assert not [str(w.message) for w in recwarn if "will be ignored" in str(w.message)]
    assert trainer.callback_metrics["generator/lr"] == pytest.approx(gan.rates[-1][0])


def test_a_plateau_rests_until_the_first_validation(tmp_path: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        plateau = ReduceLROnPlateau(generator, factor=0.5, patience=0)
        watching = {"scheduler": plateau, "interval": "epoch", "monitor": "val/flat"}
        return {"optimizer": generator, "lr_scheduler": watching}, {"optimizer": discriminator}

    gan = Rates(lr=(1e-2, 1e-2), schedulers=schedulers)
    every = {"check_val_every_n_epoch": 2, "limit_train_batches": 1, "max_epochs": 6}
    quiet_trainer(tmp_path, **every).fit(gan, toy_loader(), toy_loader(4))
    assert [rate for rate, _ in gan.rates] == pytest.approx([1e-2, 1e-2, 1e-2, 5e-3, 2.5e-3, 1.25e-3])


def test_a_plateau_without_its_metric_is_an_error_that_names_it(tmp_path: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        watching = {"scheduler": ReduceLROnPlateau(generator), "monitor": "val/stft"}
        return {"optimizer": generator, "lr_scheduler": watching}, {"optimizer": discriminator}

    with pytest.raises(
        MisconfigurationException, match=r"monitor 'val/stft' is not logged; name one of .*discriminator/loss"
    ):
        quiet_trainer(tmp_path).fit(ToyGAN(schedulers=schedulers), toy_loader())


class _Mixin:  # no GANModule
    def configure_optimizers(self) -> Any:
        generator, discriminator = ToyGAN.configure_optimizers(self)  # type: ignore[arg-type]
        plateau = {"scheduler": ReduceLROnPlateau(generator, factor=0.5, patience=0), "interval": "step"}
        plateau["monitor"] = "discriminator/nonfinite"
        return {"optimizer": generator, "lr_scheduler": plateau}, {"optimizer": discriminator}


class _Mixed(_Mixin, ToyGAN):
    pass


class _ByInheritance(_Mixed):
    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()


def _from_the_instance() -> ToyGAN:
    gan = ToyGAN()
    gan.configure_optimizers = partial(_Mixin.configure_optimizers, gan)
    return gan


@pytest.mark.parametrize("make", [_ByInheritance, _Mixed, _from_the_instance])
def test_a_monitor_is_kept_however_the_method_is_found(make: Any, tmp_path: Any) -> None:
    gan = make()
    own = vars(gan).get("configure_optimizers")
    quiet_trainer(tmp_path).fit(gan, toy_loader())
    assert gan.trainer.optimizers[0].param_groups[0]["lr"] < 1e-4  # halved at all but the first of ten updates
    assert vars(gan).get("configure_optimizers") == own


def test_a_monitor_may_stand_beside_the_scheduler_as_lightning_has_it(tmp_path: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        plateau = ReduceLROnPlateau(generator, factor=0.5, patience=0)
        beside = {"optimizer": generator, "lr_scheduler": plateau, "monitor": "discriminator/nonfinite"}
        return beside, {"optimizer": discriminator}

    gan = ToyGAN(schedulers=schedulers)
    quiet_trainer(tmp_path, max_epochs=3).fit(gan, toy_loader())
    assert gan.trainer.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-2 / 4)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"interval": "steps"}, "interval must be 'step' or 'epoch', got 'steps'"),
        ({"intervall": "step"}, r"unknown settings \['intervall'\]"),
        ({"reduce_on_plateau": True}, "StepLR needs a 'monitor'"),
    ],
)
def test_what_lightning_refuses_for_one_optimizer_is_refused(settings: dict, message: str, tmp_path: Any) -> None:
    def schedulers(generator: Any, discriminator: Any) -> Any:
        settled = {"scheduler": StepLR(generator, 1), **settings}
        return {"optimizer": generator, "lr_scheduler": settled}, {"optimizer": discriminator}

    with pytest.raises(MisconfigurationException, match=message):
        quiet_trainer(tmp_path).fit(ToyGAN(schedulers=schedulers), toy_loader())


class Stateless:
    def __init__(self, optimizer: Any) -> None:
        self.optimizer = optimizer


ANOTHER = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], 0.1)
REFUSED: dict[str, Any] = {
    "ReduceLROnPlateau needs a 'monitor'": lambda g, d: ([g, d], [ReduceLROnPlateau(g)]),
    "ReduceLROnPlateau needs a 'monitor',": lambda g, d: ([g, d], [{"scheduler": ReduceLROnPlateau(g)}]),
    "a scheduler's settings are without a 'scheduler'": lambda g, d: (
        {"optimizer": g, "lr_scheduler": {}},
        {"optimizer": d},
    ),
    "ToyGAN.configure_optimizers returned None": lambda g, d: None,
    "attached with an optimizer that wasn't returned": lambda g, d: ([g, d], [StepLR(ANOTHER, 1)]),
    "Unknown configuration": lambda g, d: 1,
    "Unknown configuration ": lambda g, d: [{"optimizer": g}, d],
    "`Stateless` is invalid": lambda g, d: ([g, d], [Stateless(g)]),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_cannot_be_stepped_is_refused(message: str, tmp_path: Any) -> None:
    with pytest.raises((MisconfigurationException, TypeError), match=message.rstrip()):
        quiet_trainer(tmp_path).fit(ToyGAN(schedulers=REFUSED[message]), toy_loader())


FORMS: list[Any] = [
    lambda g, d: ([g, d], StepLR(g, 1)),
    lambda g, d: ([g, d], [{"scheduler": StepLR(g, 1)}]),
    lambda g, d: ({"optimizer": g, "lr_scheduler": StepLR(g, 1)}, {"optimizer": d}),
    lambda g, d: [{"optimizer": g, "lr_scheduler": {"scheduler": StepLR(g, 1)}}, {"optimizer": d}],
]


@pytest.mark.parametrize("form", [*FORMS, lambda g, d: (g, d), lambda g, d: [g, d]])
def test_every_form_and_one_step_an_epoch_however_seldom_it_validates(form: Any, tmp_path: Any) -> None:
    gan = Rates(lr=(1.0, 1.0), schedulers=form)
    options = {"max_epochs": 3, "limit_train_batches": 1, "check_val_every_n_epoch": 2}
    quiet_trainer(tmp_path, **options).fit(gan, toy_loader(), toy_loader(4))
    falls = form in FORMS
    assert [rate for rate, _ in gan.rates] == pytest.approx([1.0, 0.1, 0.01] if falls else [1.0] * 3)
    assert [rate for _, rate in gan.rates] == [1.0] * 3


class Own:
    """A scheduler of no kind that torch or Lightning knows."""

    def __init__(self, optimizer: Any) -> None:
        self.optimizer, self.told = optimizer, list[Any]()

    def step(self, value: Any) -> None:
        self.told.append(value)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def test_a_scheduler_of_ones_own_is_told_the_metric_or_stepped_by_the_hook(tmp_path: Any) -> None:
    class Hooked(Rates):
        def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
            scheduler.step((self.current_epoch, metric))

    def schedulers(generator: Any, discriminator: Any) -> Any:
        plateau = {"scheduler": Own(generator), "reduce_on_plateau": True, "monitor": "val/flat"}
        return [generator, discriminator], [plateau, {"scheduler": Own(discriminator), "interval": "step"}]

    for kind, expected in ((Rates, [1.0, 1.0]), (Hooked, [(0, 1.0), (1, 1.0)])):
        gan = kind(schedulers=schedulers)
        trainer = quiet_trainer(tmp_path, max_epochs=2, limit_train_batches=2)
        if kind is Rates:
            gan.schedules.held.add("discriminator")  # Lightning's own hook has nothing to tell it
        trainer.fit(gan, toy_loader(), toy_loader(4))
        watching, counting = gan.lr_schedulers()
        assert [watching, counting] == [config.scheduler for config in trainer.lr_scheduler_configs]
        assert watching.told == expected
    assert counting.told == [(0, None)] * 2 + [(1, None)] * 2


def test_what_lightning_warns_of_is_warned_of(tmp_path: Any) -> None:
    def one_cycle(generator: Any, discriminator: Any) -> Any:
        return {"optimizer": generator, "foo": 1}, {"optimizer": discriminator, "lr_scheduler": cycle(discriminator)}

    def lenient(generator: Any, discriminator: Any) -> Any:
        watching = {"scheduler": ReduceLROnPlateau(generator), "monitor": "giraffe", "strict": False}
        return [generator, discriminator], [watching]

    cycle = partial(OneCycleLR, max_lr=0.1, total_steps=3)
    with (
        pytest.warns(UserWarning, match="OneCycleLR is stepped once per epoch"),
        pytest.warns(match="unsupported keys"),
    ):
        quiet_trainer(tmp_path).fit(ToyGAN(schedulers=one_cycle), toy_loader(4))
    gan = Rates(schedulers=lenient)
    with pytest.warns(UserWarning, match="monitor 'giraffe' is not logged"):
        quiet_trainer(tmp_path).fit(gan, toy_loader(4))
    assert gan.optimizers()[0].param_groups[0]["lr"] == 1e-2
