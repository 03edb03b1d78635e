"""What a search can be told is said once, which attributes it sets, and how mistakes are told."""

import inspect
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, LearningRateFinder
from lightning.pytorch.tuner import Tuner as LightningTuner
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.sweeps import OnePlayer, Plain, Tuned
from support.toy import ToyGAN, quiet_trainer, toy_loader, weights
from torch import Tensor
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torch.utils.data import DataLoader

from univnet.gan import Collapse, Tuner, Updates
from univnet.gan.tuner.batch_size import BatchSizeOptions
from univnet.gan.tuner.tuner import LRFindOptions

SEARCHES = [(Tuner.lr_find, LRFindOptions), (Tuner.scale_batch_size, BatchSizeOptions)]


@pytest.mark.parametrize(("method", "options"), SEARCHES)
def test_the_options_of_a_search_are_its_arguments(method: Callable[..., Any], options: type) -> None:
    parameters, hints = inspect.signature(method).parameters, get_type_hints(method)
    for field in fields(options):
        assert parameters[field.name].default == getattr(options(), field.name), field.name
        assert hints[field.name] == get_type_hints(options)[field.name], field.name
        assert f"\n        {field.name}: " in inspect.getdoc(options).replace("\n    ", "\n        "), field.name
    here = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "method", "self"}
    others = parameters.keys() - {field.name for field in fields(options)} - here
    assert others <= {"update_attr", "attr_name", "ckpt_path", "weights_only", "batch_arg_name"}
    assert all(f"    {name}: " in inspect.getdoc(method) for name in others)


@pytest.mark.parametrize("name", ["lr_find", "scale_batch_size"])
def test_names_order_and_defaults_are_lightnings(name: str) -> None:
    theirs, ours = (
        list(inspect.signature(getattr(kind, name)).parameters.values()) for kind in (LightningTuner, Tuner)
    )
    for their, our in zip(theirs, ours, strict=False):
        assert our.name == their.name
        assert our.kind == their.kind
        if name == "lr_find" and our.name == "attr_name":
            continue
        assert our.default == their.default, our.name
    assert len(ours) > len(theirs)
    later = ["weights_only"] * (name == "lr_find")  # Lightning has it from a later version on
    assert [our.name for our in ours[len(theirs) :] if our.kind != inspect.Parameter.KEYWORD_ONLY] == [
        each for each in later if each not in {their.name for their in theirs}
    ]


def test_every_wrong_option_is_named_in_one_message() -> None:
    wrong = {"optimizer": "adam", "mode": "x", "min_lr": 0.0, "num_training": 1, "repeats": 0, "validation_batches": -1}
    wrong |= {"ratio": -1.0, "smoothing": 1.0, "suggest": "y", "grid_size": 1}
    with pytest.raises(ValueError, match=r"^learning-rate range test: ") as told:
        LRFindOptions(**wrong)
    for name, value in wrong.items():
        assert name in str(told.value)
        assert repr(value) in str(told.value)
    for rates in ([], [1e-3, 0.0]):
        with pytest.raises(ValueError, match="rates must be at least one learning rate above 0"):
            LRFindOptions(rates=rates)
    wrong = {"mode": "fast", "steps_per_trial": 0, "init_val": 0, "max_trials": -1, "margin": 1.0, "max_val": 0}
    wrong |= {"target_batch": 0, "memory_budget": "much"}
    with pytest.raises(ValueError, match=r"^batch-size search: ") as told:
        BatchSizeOptions(**wrong)
    assert all(f"`{name}`" in str(told.value) and str(value) in str(told.value) for name, value in wrong.items())
    with pytest.raises(ValueError, match="`memory_budget` must be at least 1, got 0"):
        BatchSizeOptions(memory_budget=0)


def test_which_rates_are_tested() -> None:
    assert LRFindOptions(min_lr=0.1, max_lr=0.3, num_training=3, mode="linear").points() == pytest.approx(
        [0.1, 0.2, 0.3]
    )
    assert LRFindOptions(optimizer="grid", grid_size=2, num_training=1).points() == [1e-8, 1]
    assert LRFindOptions(rates=(0.2, 0.1), collapse=Collapse(loss=0.0)).points() == [0.2, 0.1]


def test_a_memory_budget_is_read_with_its_unit() -> None:
    assert BatchSizeOptions(memory_budget="1.5 GiB").budget == 1.5 * 2**30
    assert BatchSizeOptions(memory_budget=7).budget == 7
    assert BatchSizeOptions().budget is None


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


class Named(ToyGAN):
    """Has the generator's rate under a name of its own, as an attribute, a hyperparameter or both."""

    def __init__(self, attribute: bool, hyperparameter: bool, kind: Any = torch.optim.AdamW) -> None:
        super().__init__()
        self.kind = kind
        if attribute:
            self.fancy_lr = 1e-3
        if hyperparameter:
            self.save_hyperparameters({"fancy_lr": 1e-3})

    def configure_optimizers(self) -> Any:
        rate = vars(self).get("fancy_lr") or self.hparams["fancy_lr"]
        return [self.kind(self.generator.parameters(), rate), self.kind(self.discriminator.parameters(), 1e-3)]


@pytest.mark.parametrize(
    ("attribute", "hyperparameter", "kind"),
    [
        (True, False, torch.optim.AdamW),
        (False, True, torch.optim.Adagrad),  # which has its state before it has a gradient
        (True, True, torch.optim.AdamW),
    ],
)
def test_the_rate_found_is_set_by_any_name_and_trained_at(
    attribute: bool, hyperparameter: bool, kind: Any, tmp_path: Path
) -> None:
    model, trainer, loader = Named(attribute, hyperparameter, kind), quiet_trainer(tmp_path), toy_loader(640, 64)
    options: dict[str, Any] = {"attr_name": "fancy_lr", "min_lr": 1e-5, "num_training": 60, "monitor": "generator/l2"}
    found = Tuner(trainer).lr_find(model, loader, **options)
    assert found.suggestion() not in (None, 1e-3)
    places = [vars(model).get("fancy_lr")] * attribute + [model.hparams.get("fancy_lr")] * hyperparameter
    assert set(places) == {found.suggestion()}
    trainer.fit(model, loader)
    assert trainer.optimizers[0].param_groups[0]["lr"] == found.suggestion()


def test_nothing_is_set_without_a_suggestion_and_nothing_read_without_a_place(tmp_path: Path) -> None:
    model = Named(True, False)
    found = Tuner(quiet_trainer(tmp_path)).lr_find(model, toy_loader(), num_training=2, attr_name="fancy_lr")
    assert found.suggestion() is None
    assert model.fancy_lr == 1e-3

    class Unread:
        def __iter__(self) -> Any:
            pytest.fail("data are read")

    with pytest.raises(AttributeError, match="no attribute or hyperparameter generator_lr"):
        Tuner(quiet_trainer(tmp_path)).lr_find(model, Unread())


def test_every_search_finds_the_same(tmp_path: Path) -> None:
    model, tuner = ToyGAN(noise=0.3), Tuner(quiet_trainer(tmp_path))
    loader = DataLoader(toy_loader().dataset, 4, shuffle=True)
    found = [tuner.lr_find(model, loader, num_training=12, update_attr=False).results for _ in range(3)]
    assert len(found[0]["loss"]) == 12
    assert found[0] == found[1] == found[2]


class Watched(ToyGAN):
    """Each player has a plateau that watches what validation logs."""

    def __init__(self) -> None:
        super().__init__(schedulers=self.watching)
        self.batch_size, self.validated = 4, 0

    def watching(self, *optimizers: Any) -> Any:
        plateaus = [{"scheduler": ReduceLROnPlateau(each), "monitor": "val/l2"} for each in optimizers]
        return list(optimizers), plateaus

    def train_dataloader(self) -> Any:
        return toy_loader(40, self.batch_size)

    def val_dataloader(self) -> Any:
        return toy_loader(20, self.batch_size)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.validated += 1
        self.log("val/l2", (self.generate(batch) - batch[1]).square().mean())


@pytest.mark.parametrize("optimizer", ["generator", "discriminator"])
@pytest.mark.usefixtures("here")
def test_what_watches_validation_neither_ends_a_search_nor_is_limited_after_it(optimizer: str, tmp_path: Path) -> None:
    stopping = EarlyStopping("val/l2", patience=100)
    model, trainer = Watched(), quiet_trainer(tmp_path, callbacks=[stopping], max_epochs=2, num_sanity_val_steps=0)
    tuner = Tuner(trainer)
    found = tuner.lr_find(model, optimizer=optimizer, num_training=25, update_attr=False)
    assert len(found.results["lr"]) == 25  # two epochs and a half
    tuner.scale_batch_size(model, init_val=8, max_trials=1, margin=0.0)
    trainer.fit(model)
    assert (trainer.global_step, model.validated) == (2 * 5, 2 * 3)
    assert trainer.train_dataloader.batch_size == trainer.val_dataloaders.batch_size == 8


def test_a_search_within_training_changes_nothing_of_it(tmp_path: Path) -> None:
    class Searches(Callback):
        def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
            if trainer.current_epoch in (0, 2):
                found.append(Tuner(trainer).lr_find(pl_module, toy_loader(), num_training=12, update_attr=False))

    trained, found = [], list[Any]()
    for callbacks in ([], [Searches()]):
        torch.manual_seed(4)
        gan, trainer = ToyGAN(Updates(3), noise=0.3), quiet_trainer(tmp_path, callbacks=callbacks, max_epochs=4)
        trainer.fit(gan, toy_loader())
        trained.append((weights(gan), trainer.global_step))
    assert [len(each.results["lr"]) for each in found] == [12, 12]
    assert torch.equal(trained[0][0], trained[1][0])
    assert trained[0][1] == trained[1][1] == 16


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
        (
            {"update_attr": True, "optimizer": "both", "attr_name": "lr"},
            MisconfigurationException,
            "a mapping with both",
        ),
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
