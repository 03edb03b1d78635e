"""The batch-size finder in real trainers: what it finds, where it sets it, and that it leaves no trace."""

import os
import random
import signal
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import BatchSizeFinder
from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.limited import Limited, LimitedData, cuda_error, sizes
from support.state import assert_same, state_of
from support.toy import Stream, ToyGAN, quiet_trainer, toy_loader
from torch.utils.data import DataLoader

from univnet.gan import ExponentialMovingAverage
from univnet.gan.tuner.tuner import Tuner


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
    class Streaming(Limited):
        def train_dataloader(self) -> DataLoader:
            return DataLoader(Stream(11), batch_size=self.batch_size)

    tuner = Tuner(quiet_trainer(tmp_path))
    assert tuner.scale_batch_size(Streaming(), mode="binsearch", margin=0.0) == 11
    assert tuner.batch_size_search.trials[3].reason == "an epoch has fewer than 16 examples"


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
    with pytest.raises(
        wrong, match="batch_size is 4 on the model, 2 on the data module: it is unclear which one is used"
    ):
        tuner.scale_batch_size(gan, datamodule=data)
    for loaders in ({"train_dataloaders": toy_loader()}, {"val_dataloaders": toy_loader()}, {"dataloaders": 1}):
        with pytest.raises(wrong, match="cannot be used with dataloaders passed directly"):
            tuner.scale_batch_size(gan, **loaders)
    with pytest.raises(wrong, match="has a BatchSizeFinder callback"):
        Tuner(quiet_trainer(tmp_path, callbacks=[BatchSizeFinder()])).scale_batch_size(gan)
    with pytest.raises(ValueError, match="method 'validate' is invalid"):
        tuner.scale_batch_size(gan, method="validate")
    with pytest.raises(ValueError, match=r"`mode` must be one of.*'fast'; `init_val` must be.*; `margin`"):
        tuner.scale_batch_size(gan, mode="fast", init_val=0, margin=1.0)
    gan.train_dataloader = lambda: toy_loader(40, 7)
    with pytest.raises(wrong, match="hold 7 examples although the batch size is set to 2: make train_dataloader"):
        tuner.scale_batch_size(gan)
    assert gan.batch_size == 4
    data.train_dataloader = lambda: toy_loader(40, 1)  # a data module without the attribute, which Lightning passes by
    del data.batch_size
    with pytest.raises(wrong, match="hold 1 examples although the batch size is set to 2"):
        tuner.scale_batch_size(Limited(), datamodule=data)


def test_fast_dev_run_is_left_alone(tmp_path: Path) -> None:
    gan = Limited()
    with pytest.warns(UserWarning, match="Skipping the batch-size finder"):
        assert Tuner(quiet_trainer(tmp_path, fast_dev_run=True)).scale_batch_size(gan) is None
    assert gan.batch_size == 4


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
def test_nothing_but_the_size_changes(how: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logger = CSVLogger(tmp_path / "logs")
    averages = [ExponentialMovingAverage(0.9)]
    trainer = quiet_trainer(tmp_path, logger=logger, callbacks=averages, max_epochs=2, limit_train_batches=5)
    gan = Noisy(5, noise=0.1, error=cuda_error if how == "found" else lambda: ZeroDivisionError("none of yours"))
    gan.save_hyperparameters({"batch_size": 4, "lr": 1.0})
    gan.wait = 0.0
    trainer.fit(gan)
    gan.generator[0].weight.grad = torch.ones_like(gan.generator[0].weight)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))  # /tmp is everybody's
    processes = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children")  # others' may be left of earlier tests
    children = processes.read_text()
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
    assert not list(temporary.iterdir())
    assert processes.read_text() == children
