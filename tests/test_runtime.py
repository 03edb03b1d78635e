"""What is freed comes back without the kernel's zeroed pages, if so wished."""

import subprocess
import sys

import pytest
import torch
from support import ROOT

from univnet import runtime
from univnet.cli.training import TrainingCLI

CODE = """
import ctypes, resource
from univnet.runtime import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        block = ctypes.create_string_buffer(SIZE)
        ctypes.memset(block, 1, SIZE)
        del block
    return (resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before) * resource.getpagesize() / SIZE

SIZE = 2**26
as_started = faults()
taken = keep_freed_memory()
kept, later = faults(), faults()
keep_freed_memory(False)
print(taken, as_started, kept, later, faults())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="is about glibc")
def test_blocks_are_new_each_time_unless_kept() -> None:
    ran = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True)
    taken, *blocks = ran.stdout.split()
    if taken == "False":
        pytest.skip("this C library has no mallopt")
    as_started, kept, later, given_back = map(float, blocks)
    assert as_started == pytest.approx(4, abs=0.3)  # blocks of fresh pages, of four
    assert kept < 1.3
    assert later < 0.3
    assert given_back > 2.7  # the first may still come of what was kept


@pytest.fixture
def precisions(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the process is told to multiply matrices in; it is not told really."""
    told: list[str] = []
    monkeypatch.setattr(torch, "set_float32_matmul_precision", told.append)
    return told


def test_matrices_are_multiplied_in_tf32_on_a_gpu_alone(precisions: list[str]) -> None:
    runtime.suit_training(torch.device("cpu"), "medium")
    assert precisions == []
    runtime.suit_training(torch.device("cuda:1"))
    runtime.suit_training(torch.device("cuda"), "highest")
    assert precisions == ["high", "highest"]


@pytest.mark.parametrize(("options", "precision"), [([], "high"), (["--matmul_precision=highest"], "highest")])
def test_the_command_line_says_how(options: list[str], precision: str, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr("univnet.cli.training.suit_training", lambda *given: asked.append(given))
    given = ["--config", str(ROOT / "configs/demo.yaml"), "--trainer.logger=false", "--trainer.accelerator=cpu"]
    TrainingCLI(args=[*given, *options], run=False)
    assert asked == [(torch.device("cpu"), precision)]
