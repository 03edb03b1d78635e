"""Two real processes (gloo) look for a batch size: they agree, and neither waits for the other."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support import PROGRAMS
from support.limited import Limited
from support.toy import quiet_trainer

from univnet.gan.tuner.tuner import Tuner


def test_two_ranks_agree(tmp_path: Path) -> None:
    script = PROGRAMS / "batch_size_ddp_run.py"
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1", "PL_GLOBAL_SEED": "7"},  # Lightning would seed again
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in range(2)]
    for rank in ranks:  # the first has room for 23, the other for 11
        assert rank["trials"] == [2, 4, 8, 16, 12, 10, 11]
        assert rank["examples"] == 40
        assert rank["found"] == [6, 9]  # of 8 and 11: 2 ranks of 6 · 3 and of 9 · 2 make 36
        assert rank["accumulate"] == 2
    assert torch.equal(ranks[0]["weights"], ranks[1]["weights"])
    assert ranks[0]["failure"] == "RuntimeError: a trial failed on rank 1: ZeroDivisionError: rank one alone"
    assert ranks[1]["failure"].startswith("ZeroDivisionError: rank one alone")


def test_ranks_that_last_no_longer_than_a_fit_are_refused(tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, devices=2, strategy="ddp_spawn")
    with pytest.raises(MisconfigurationException, match="use strategy=ddp"):
        Tuner(trainer).scale_batch_size(Limited())
