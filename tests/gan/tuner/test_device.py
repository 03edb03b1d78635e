"""What trials ask of an accelerator and leave on it; the calls to torch are watched, since no test needs a GPU."""

import gc
import weakref
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.limited import Limited
from support.toy import ToyGAN, quiet_trainer, toy_loader

from univnet.gan import Tuner
from univnet.gan.rng import begin_on
from univnet.gan.tuner import batch_size_trial, forked, sandbox

SECOND = torch.device("cuda:1")


@pytest.fixture
def alive(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many of the copies that trials made are left when they free the device's memory, per trial."""
    counts: list[int] = []
    copies: list[weakref.ref] = []
    copy = sandbox._copy

    def noted(model: Any) -> Any:
        twin = copy(model)
        copies.append(weakref.ref(twin))
        return twin

    def count() -> None:
        gc.collect()
        counts.append(sum(each() is not None for each in copies[-1:]))

    monkeypatch.setattr(sandbox, "_copy", noted)
    monkeypatch.setattr(sandbox, "garbage_collection_cuda", count)
    return counts


def test_batch_size_trials_leave_nothing_to_free_later(
    alive: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(forked, "available", lambda: False)  # as on a GPU: in this process
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(Limited(10), margin=0.0) == 8
    assert len(alive) == 6  # the probe, 2, 4, 8, 16, and the twin that all of them are copied from
    assert alive[:-1] == [0] * 5


def test_range_tests_leave_nothing_to_free_later(alive: list[int], tmp_path: Path) -> None:
    Tuner(quiet_trainer(tmp_path)).lr_find(ToyGAN(), toy_loader(), num_training=5, update_attr=False)
    assert alive == [0] * len(alive)
    assert alive


@pytest.mark.parametrize("free", [0.04, 0.06])
def test_a_librarys_message_means_a_full_card_only_if_it_is_full(
    free: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at when the error comes: the trainer then gives memory back."""
    monkeypatch.setattr(forked, "available", lambda: False)
    monkeypatch.setattr(batch_size_trial, "is_scarce", lambda device: free < 0.05)
    gan = Limited(10, error=lambda: RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublas…`"))
    tuner = Tuner(quiet_trainer(tmp_path))
    if free < 0.05:
        assert tuner.scale_batch_size(gan, margin=0.0) == 8
    else:
        with pytest.raises(RuntimeError, match="NOT_INITIALIZED"):
            tuner.scale_batch_size(gan)


def test_the_devices_own_memory_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, Any]] = []
    names = ("synchronize", "reset_peak_memory_stats", "max_memory_reserved")
    watched = {name: lambda device, name=name: asked.append((name, device)) or 7 for name in names}
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace(**watched))
    batch_size_trial.synchronize(SECOND)
    batch_size_trial._reset_peak(SECOND)
    assert batch_size_trial._peak(SECOND) == 7
    assert asked == [(name, SECOND) for name in names]
    only = SimpleNamespace(synchronize=lambda: asked.clear(), driver_allocated_memory=lambda: 3)
    monkeypatch.setattr(torch, "get_device_module", lambda device: only)
    batch_size_trial.synchronize(torch.device("mps"))
    assert batch_size_trial._peak(torch.device("mps")) == 3
    assert not asked


def test_a_device_begins_before_its_random_numbers_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[Any] = []
    monkeypatch.setattr(torch.cuda, "set_device", done.append)
    monkeypatch.setattr(torch.cuda, "init", lambda: done.append("init"))
    begin_on(torch.device("cpu"))
    assert done == []
    begin_on(SECOND)
    assert done == [SECOND, "init"]
    trainer = quiet_trainer(tmp_path)
    monkeypatch.setattr(sandbox, "begin_on", lambda device: done.append(device))
    monkeypatch.setattr(sandbox, "preserved", lambda: done.append("kept") or nullcontext())
    with sandbox.trial(trainer, ToyGAN(), []):
        assert done[2:] == [trainer.strategy.root_device, "kept"]
