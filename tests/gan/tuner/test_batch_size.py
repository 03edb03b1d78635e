"""The batch-size finder in real trainers: what it finds, what a trial is, and that it leaves no trace."""

import os
import random
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder, Callback
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.limited import Limited, LimitedData, cuda_error
from support.state import assert_same, state_of
from support.toy import ToyGAN, quiet_trainer, toy_data, toy_loader
from torch.utils.data import DataLoader

from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, Updates
from univnet.gan.tuner import batch_size as module
from univnet.gan.tuner import forked
from univnet.gan.tuner.batch_size_trial import Trial
from univnet.gan.tuner.tuner import Tuner


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in this process, as with an accelerator, and not in children."""
    monkeypatch.setattr(forked, "available", lambda: False)
    monkeypatch.setattr("univnet.gan.tuner.sandbox.garbage_collection_cuda", lambda: None)  # slow, and for CUDA


@pytest.fixture(params=["child", "here"])
def where(request: Any) -> None:
    if request.param == "here":
        request.getfixturevalue("here")


def noted(path: Path) -> list[list[tuple[int, ...]]]:
    """Return what ``Limited`` wrote, a list for each process: examples, epoch, optimizers and networks (see there)."""
    lines = [tuple(map(int, line.split())) for line in path.read_text().splitlines()]
    return [[line[1:] for line in lines if line[0] == process] for process in dict.fromkeys(line[0] for line in lines)]


def sizes(tuner: Tuner) -> list[int]:
    assert tuner.batch_size_search is not None
    return [each.size for each in tuner.batch_size_search.trials]


# Found


@pytest.mark.parametrize(
    ("mode", "init_val", "limit", "found"),
    [
        ("power", 2, 1, 1),
        ("power", 2, 37, 32),
        ("power", 512, 300, 256),
        ("power", 500, 100, 62),  # Lightning's own expectations: without its margin 62 and 100
        ("binsearch", 500, 100, 100),
        ("binsearch", 2, 37, 37),
        ("binsearch", 64, 3, 3),
        ("binsearch", 1, 1, 1),
    ],
)
def test_the_size_is_found_and_set(mode: str, init_val: int, limit: int, found: int, tmp_path: Path) -> None:
    gan, tuner = Limited(limit), Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(gan, mode=mode, init_val=init_val, margin=0.0) == found == gan.batch_size
    assert sizes(tuner)[0] == init_val
    assert all(each.fits == (each.size <= limit) for each in tuner.batch_size_search.trials)
    assert type(gan.batch_size) is int


def test_a_margin_is_kept_in_every_mode(tmp_path: Path) -> None:
    for mode, found in (("power", 60), ("binsearch", 95)):
        gan = Limited(100)
        assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, mode=mode, init_val=64) == found == gan.batch_size


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("mode", ["power", "binsearch"])
def test_never_more_than_the_examples(mode: str, drop_last: bool, tmp_path: Path) -> None:
    gan, tuner = Limited(examples=12, drop_last=drop_last), Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(gan, mode=mode, margin=0.0) == 12  # Lightning's power says 16
    assert sizes(tuner) == [2, 4, 8, 12]
    assert tuner.scale_batch_size(gan, mode=mode, init_val=512) == 11
    assert sizes(tuner) == [12]
    tuner.scale_batch_size(gan, mode=mode, init_val=4, max_val=5)
    assert sizes(tuner) == [4, 5]


def test_no_more_trials_than_allowed(tmp_path: Path) -> None:
    gan, tuner = Limited(), Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(gan, max_trials=3, margin=0.0) == 8
    assert sizes(tuner) == [2, 4, 8]
    assert tuner.scale_batch_size(gan, max_trials=0) == 2  # as Lightning: the first size, untried
    with pytest.raises(MemoryError, match="in 2 trials, batch_size=256 does not fit"):
        tuner.scale_batch_size(Limited(3), init_val=512, max_trials=2)


@pytest.mark.usefixtures("where")
def test_of_all_sizes_none_fits(tmp_path: Path) -> None:
    gan = Limited(0)
    with pytest.raises(MemoryError, match=r"even batch_size=1 does not fit into memory: CUDA out of memory"):
        Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan)
    assert gan.batch_size == 4


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,
        lambda: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: not enough memory: you tried"),
    ],
)
def test_what_lightning_takes_for_other_errors(error: Any, tmp_path: Path) -> None:
    gan = Limited(5, error=error)
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, mode="binsearch", init_val=4, margin=0.0) == 5


def test_an_iterable_dataset_that_does_not_fill_a_batch(tmp_path: Path) -> None:
    class Stream(torch.utils.data.IterableDataset):
        def __iter__(self) -> Any:
            return iter(list(toy_data(11)))

    class Streaming(Limited):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(Stream(), batch_size=self.batch_size)

    tuner = Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(Streaming(), mode="binsearch", margin=0.0) == 11
    assert tuner.batch_size_search.trials[3].reason == "an epoch has fewer than 16 examples"


def speeds(monkeypatch: pytest.MonkeyPatch, examples_per_second: dict[int, float]) -> None:
    def run(trainer: Any, model: Any, datamodule: Any, size: int, *_: Any) -> Trial:
        if size not in examples_per_second:
            return Trial(size, False, memory=99 * 2**30, examples=1000, reason="too much")
        return Trial(size, True, size / examples_per_second[size], size * 2**30, 1000)

    monkeypatch.setattr(module, "run_trial", run)


@pytest.mark.usefixtures("here")
def test_throughput(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, {1: 3.0, 2: 6.0, 4: 11.0, 8: 19.7, 16: 20.0, 32: 19.9})
    gan, tuner = Limited(), Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(gan, mode="throughput") == 8
    assert sizes(tuner) == [2, 4, 8, 16, 32, 64]
    found = tuner.batch_size_search
    table = found.table().splitlines()
    assert table[0].split() == ["size", "outcome", "s/micro-batch", "examples/s", "peak", "memory"]
    assert table[3].split() == ["8", "fits", "0.406", "19.7", "8192", "MiB"]
    assert table[6].split() == ["64", "does", "not", "fit", "101376", "MiB"]
    speed, memory = found.plot().axes
    assert speed.lines[0].get_xydata().tolist() == [[2, 6], [4, 11], [8, pytest.approx(19.7)], [16, 20], [32, 19.9]]
    assert memory.lines[0].get_xydata().tolist() == [[size, size] for size in (2, 4, 8, 16, 32)]
    found.plot().savefig(tmp_path / "plot.png")
    speeds(monkeypatch, {2: 6.0, 4: 11.0, 8: 20.0})
    assert tuner.scale_batch_size(gan, mode="throughput") == 7  # the margin, as 8 is the largest that fits


@pytest.mark.usefixtures("here")
def test_accumulation_for_a_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    speeds(monkeypatch, {2: 1.0, 4: 1.0, 8: 1.0, 16: 1.0, 32: 1.0})
    gan, tuner = Limited(), Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(gan, target_batch=256) == 16 == gan.batch_size  # not 30, the most
    found = tuner.batch_size_search
    assert found.config() == {
        "data.batch_size": 16,
        "model.generator_updates.accumulate": 16,
        "model.discriminator_updates.accumulate": 16,
    }
    assert str(found) == ("batch size 16; the largest that fitted is 32; updates of 16 micro-batches have 256 examples")
    assert tuner.scale_batch_size(gan, target_batch=97) == 24
    assert str(tuner.batch_size_search).endswith("updates of 4 micro-batches have 96 examples, 1 fewer than asked for")
    assert tuner.scale_batch_size(gan, target_batch=2000) == 25
    assert str(tuner.batch_size_search).endswith(
        "1000 fewer than asked for (an epoch, which no update outlasts, has 1000)"
    )


# A trial


def test_a_trial_is_the_real_thing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    gan = Limited(10, examples=9, log=log, generator=Updates({0: 1, 7: 8}), discriminator=Updates(3))
    tuner = Tuner(quiet_trainer(tmp_path))
    tuner.scale_batch_size(gan, steps_per_trial=1, init_val=4, max_trials=1)
    (lines,) = noted(log)
    full = [line for line in lines if line[0] == 4]
    # Two full micro-batches of 4 an epoch, and the example that is left, which does not count.
    assert [line[0] for line in lines[:4]] == [4, 4, 1, 4]
    assert {line[1] for line in lines} == {0, 1}
    assert len(full) == 4
    # At last there is a forward pass with the state of both optimizers and the gradients of open windows.
    assert full[0][2:] == (0, 1)  # the generator's backward pass comes first
    assert full[-1][2:] == (2, 2)


def test_steps_per_trial_are_full_micro_batches(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tuner = Tuner(quiet_trainer(tmp_path))
    tuner.scale_batch_size(Limited(log=log), steps_per_trial=7, init_val=16, max_trials=1)
    assert [line[0] for line in noted(log)[0]] == [16] * 7


@pytest.mark.usefixtures("here")
def test_the_batch_size_of_validation_counts(tmp_path: Path) -> None:
    class Validated(Limited):
        def val_dataloader(self) -> DataLoader:
            return toy_loader(40, self.batch_size)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if len(batch[0]) > 5:
                raise cuda_error()

    gan = Validated()
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, mode="binsearch", init_val=4, margin=0.0) == 5
    unvalidated = quiet_trainer(tmp_path, limit_val_batches=0)
    assert Tuner(unvalidated).scale_batch_size(gan, init_val=4, max_val=8, margin=0.0) == 8


@pytest.mark.usefixtures("here")
def test_averages_hold_weights_and_other_callbacks_rest(tmp_path: Path) -> None:
    seen = []

    class Looking(Limited):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append([(type(each).__name__, getattr(each, "n_averaged", None)) for each in self.trainer.callbacks])

        def val_dataloader(self) -> DataLoader:
            return toy_loader(4)

    late = [
        ExponentialMovingAverage(update_starting_at_step=1000),
        StochasticWeightAveraging(1e-3, swa_epoch_start=0.9, player="discriminator"),
    ]
    trainer = quiet_trainer(tmp_path, callbacks=[*late, Callback()])
    Tuner(trainer).scale_batch_size(Looking(), max_trials=1)
    held = [("ExponentialMovingAverage", 1), ("StochasticWeightAveraging", 1)]
    assert [each[:2] for each in seen] == [held]
    assert [name for name, _ in seen[0][2:]] == ["_Watch"]
    assert [each.n_averaged for each in late] == [0, 0]


@pytest.mark.usefixtures("where")
def test_a_player_that_rests_is_told_of_unless_the_module_begins_its_game(tmp_path: Path) -> None:
    class Late(Limited):
        start = 1000

        def discriminator_loss(self, batch: Any, fake: Any) -> Any:
            return super().discriminator_loss(batch, fake) if self.global_step >= self.start else None

    class Ready(Late):
        def on_batch_size_trial(self) -> None:
            self.start = 0

    with pytest.warns(UserWarning, match="the discriminator rested in the trials"):
        assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(Late(5), init_val=4, max_trials=2, margin=0.0) == 8
    gan = Ready(5)
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, init_val=4, max_trials=2, margin=0.0) == 4
    assert gan.start == 1000


@pytest.mark.usefixtures("here")
def test_a_trainer_that_has_ended_can_be_tried(tmp_path: Path) -> None:
    gan, trainer = Limited(5), quiet_trainer(tmp_path, max_steps=3, max_epochs=1)
    trainer.fit(gan)
    assert Tuner(trainer).scale_batch_size(gan, init_val=4, margin=0.0) == 4
    assert trainer.global_step == 3


# Where the size is


def test_every_place_is_set(tmp_path: Path) -> None:
    tuner = Tuner(quiet_trainer(tmp_path))

    gan = Limited(5, batch_size=None)
    gan.save_hyperparameters({"batch_size": 2})
    tuner.scale_batch_size(gan, init_val=4, max_trials=1, margin=0.0)
    assert gan.hparams["batch_size"] == 4

    for options in ({}, {"hyperparameter": True}, {"hyperparameter": True, "logger": False}):
        gan, data = ToyGAN(), LimitedData(examples=6, **options)
        assert tuner.scale_batch_size(gan, datamodule=data, mode="binsearch", init_val=4, margin=0.0) == 6
        assert (data.hparams if options else vars(data))["batch_size"] == 6
        assert data.setups == 0  # not that one knows of

    gan, data = ToyGAN(), LimitedData(examples=6)
    gan.batch_size = 4
    assert tuner.scale_batch_size(gan, data, init_val=4, margin=0.0) == 6 == gan.batch_size == data.batch_size


@pytest.mark.parametrize("logger", [False, True])
@pytest.mark.usefixtures("here")
def test_the_data_module_is_as_before_after_an_error(logger: bool, tmp_path: Path) -> None:
    class Broken(ToyGAN):
        def generate(self, batch: Any) -> Any:
            raise ZeroDivisionError

    data = LimitedData(5, hyperparameter=True, logger=logger)
    before = dict(vars(data)), dict(data.hparams)
    with pytest.raises(ZeroDivisionError):
        Tuner(quiet_trainer(tmp_path)).scale_batch_size(Broken(), datamodule=data)
    assert (dict(vars(data)), dict(data.hparams)) == before


def test_other_names(tmp_path: Path) -> None:
    class Named(Limited):
        bs = 4

        def train_dataloader(self) -> DataLoader:
            return toy_loader(40, self.bs)

    gan = Named(5)
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, init_val=4, batch_arg_name="bs", margin=0.0) == 4
    assert gan.bs == 4
    assert Named.bs == 4


def test_mistakes_are_told_in_a_sentence(tmp_path: Path) -> None:
    tuner, gan, data = Tuner(quiet_trainer(tmp_path)), Limited(), LimitedData(2)
    wrong = MisconfigurationException
    with pytest.raises(wrong, match="size is found neither on the model nor on the data module, nor in their hparams"):
        tuner.scale_batch_size(gan, batch_arg_name="size")
    with pytest.raises(wrong, match="batch_size is 4 on the model, 2 on the data module: which one counts is unclear"):
        tuner.scale_batch_size(gan, datamodule=data)
    for loaders in ({"train_dataloaders": toy_loader()}, {"val_dataloaders": toy_loader()}, {"dataloaders": 1}):
        with pytest.raises(wrong, match="cannot be used with dataloaders passed directly"):
            tuner.scale_batch_size(gan, **loaders)
    with pytest.raises(wrong, match="has a BatchSizeFinder callback"):
        Tuner(quiet_trainer(tmp_path, callbacks=[BatchSizeFinder()])).scale_batch_size(gan)
    with pytest.raises(ValueError, match="method 'validate' is invalid"):
        tuner.scale_batch_size(gan, method="validate")
    with pytest.raises(ValueError, match=r"`mode` should be either of.*'fast'; `init_val` should be.*; `margin`"):
        tuner.scale_batch_size(gan, mode="fast", init_val=0, margin=1.0)
    gan.train_dataloader = lambda: toy_loader(40, 7)
    with pytest.raises(wrong, match="hold 7 examples where the batch size is set to 2: make train_dataloader"):
        tuner.scale_batch_size(gan)
    assert gan.batch_size == 4


def test_fast_dev_run_is_left_alone(tmp_path: Path) -> None:
    gan = Limited()
    with pytest.warns(UserWarning, match="Skipping the batch-size finder"):
        assert Tuner(quiet_trainer(tmp_path, fast_dev_run=True)).scale_batch_size(gan) is None
    assert gan.batch_size == 4


# No trace


class Noisy(Limited):
    """Draws from every generator of random numbers, and waits where a test wants to interrupt."""

    def generate(self, batch: Any) -> Any:
        random.random(), np.random.rand()  # noqa: NPY002
        time.sleep(self.wait)
        return super().generate(batch)


def interrupt(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGINT)).start()


@pytest.mark.parametrize("how", ["found", "error", "interrupt"])
@pytest.mark.usefixtures("where")
def test_nothing_but_the_size_changes(how: str, tmp_path: Path) -> None:
    logger = CSVLogger(tmp_path / "logs")
    averages = [ExponentialMovingAverage(0.9)]
    trainer = quiet_trainer(tmp_path, logger=logger, callbacks=averages, max_epochs=2, limit_train_batches=5)
    gan = Noisy(5, noise=0.1, error=cuda_error if how == "found" else lambda: ZeroDivisionError("none of yours"))
    gan.save_hyperparameters({"batch_size": 4, "lr": 1.0})
    gan.wait = 0.0
    trainer.fit(gan)
    gan.generator[0].weight.grad = torch.ones_like(gan.generator[0].weight)
    temporary = set(Path(os.environ.get("TMPDIR", "/tmp")).glob("univnet-*"))
    before = state_of(trainer, gan, folder=tmp_path)
    if how == "found":
        assert Tuner(trainer).scale_batch_size(gan, mode="binsearch", margin=0.0) == 5 == gan.hparams["batch_size"]
        gan.batch_size = gan.hparams["batch_size"] = 4
    elif how == "error":
        with pytest.raises(ZeroDivisionError, match="none of yours"):
            Tuner(trainer).scale_batch_size(gan)
    else:
        gan.wait = 30
        interrupt(1.0)
        with pytest.raises(KeyboardInterrupt):
            Tuner(trainer).scale_batch_size(gan)
        gan.wait = 0.0
    assert_same(before, state_of(trainer, gan, folder=tmp_path))
    assert set(Path(os.environ.get("TMPDIR", "/tmp")).glob("univnet-*")) <= temporary
    assert not Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text()
