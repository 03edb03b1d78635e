"""What a search of the batch size says: its table, its plot, and accumulation for a target."""

from pathlib import Path
from typing import Any

import pytest
from support.limited import Limited, sizes
from support.toy import quiet_trainer

from univnet.gan.tuner import batch_size as module
from univnet.gan.tuner.batch_size_trial import Trial
from univnet.gan.tuner.tuner import Tuner


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
        "1000 fewer than asked for (an update cannot be longer than an epoch of 1000)"
    )
