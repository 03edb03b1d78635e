"""Runs that are killed and stopped at random, leave what the uninterrupted one leaves (``make endurance``)."""

import multiprocessing
import os
import resource
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback
from support.endurance import endure
from support.enduring import Plan, train


@pytest.mark.parametrize("seed", range(4))
def test_a_minute_of_it(seed: int, tmp_path: Path) -> None:
    count: Counter[str] = Counter()
    endure(tmp_path, Random(seed), 15.0, count)
    assert count["runs"]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_ten_minutes_of_it(tmp_path: Path) -> None:
    count: Counter[str] = Counter()
    endure(tmp_path, Random(10), 600.0, count)
    assert count["kills"] > 30


class Watch(Callback):
    """Notes what the process holds, every thousand updates."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_start(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % 1000 == 0:
            memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
            events = sum(path.stat().st_size for path in self.path.parent.glob("*.tfevents.*"))
            with self.path.open("a") as file:
                print(trainer.global_step, memory, len(os.listdir("/proc/self/fd")), events, file=file)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_twenty_thousand_updates_hold_no_more_than_five_thousand(tmp_path: Path, capsys: Any) -> None:
    plan = Plan(updates=(1, 1), validate_every=500, save_every=500, end={"max_steps": 20_001}, averages=("ema",))
    process = multiprocessing.get_context("fork").Process(target=soak, args=(tmp_path, plan))
    process.start()
    process.join()
    assert process.exitcode == 0
    rows = np.loadtxt(tmp_path / "watched.txt")
    early, late = rows[rows[:, 0] == 5000][0], rows[rows[:, 0] == 20_000][0]
    growth = (late - early) / (late[0] - early[0])
    with capsys.disabled():
        print(f"a update: {growth[1]:.1f} B of memory, {growth[2]:g} descriptors, {growth[3]:.0f} B of events")
    assert growth[1] < 1000
    assert growth[2] == 0
    assert growth[3] < 2000
    kept = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert {"last.ckpt", "best.ckpt"} <= kept
    assert not list(tmp_path.rglob(".*partial"))


def soak(folder: Path, plan: Plan) -> None:
    torch.set_num_threads(1)
    train(folder, plan, watch=Watch(folder / "watched.txt"), every=5000)
