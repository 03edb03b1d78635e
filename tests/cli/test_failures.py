"""What a user can mend, and what the machine fell short of, is told in one line each; bugs keep their traceback."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from support.runs import load

from univnet import Generator
from univnet.cli import main
from univnet.cli.messages import UsageError
from univnet.cli.runs.failures import MACHINE, failure
from univnet.data.dataset import SegmentDataset


def system_error(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


MACHINES = [
    (system_error(errno.ENOSPC, "runs/last.ckpt"), "no room left for runs/last.ckpt (No space left on device): make"),
    (system_error(errno.EDQUOT, "runs/events"), "no room left for runs/events (Disk quota exceeded): make room"),
    (system_error(errno.EMFILE), "Too many open files"),
    (system_error(errno.EIO, "speech/a.wav"), "Input/output error: 'speech/a.wav'"),
    (MemoryError(), "find-batch-size"),
    (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "Tried to allocate 2.00 GiB"),
    (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to"), "find-batch-size"),
    (RuntimeError("DataLoader worker (pid 17) is killed by signal: Killed. "), "(pid 17) is killed by signal: Killed)"),
    (RuntimeError("DataLoader worker (pid(s) 17, 18) exited unexpectedly"), "lower data.num_workers"),
    (
        RuntimeError("DataLoader worker (pid 5) is killed by signal: Bus error. It is possible that dataloader's"),
        "of too little shared memory (/dev/shm)",
    ),
    (ConnectionError("rank 1 is gone"), "rank 1 is gone"),
]
USERS = [
    (UsageError("give another name"), "give another name"),
    (ValueError("not a number"), "not a number"),
    (PermissionError(errno.EACCES, "Permission denied", "runs"), "Permission denied: 'runs'"),
    (
        ModuleNotFoundError("Requirement 'psutil' not met. HINT: Try running `pip install -U 'psutil'`"),
        "this needs psutil: pip install 'psutil'",
    ),
    (ModuleNotFoundError("No module named 'wandb.sdk'"), "this needs wandb, which is not installed: pip install wandb"),
]


@pytest.mark.parametrize(("error", "told"), MACHINES)
def test_what_the_machine_fell_short_of_has_a_status_of_its_own(error: Exception, told: str) -> None:
    found = failure(error)
    assert found is not None
    assert told in found.message
    assert "\n" not in found.message
    assert found.status == MACHINE == 3


@pytest.mark.parametrize(("error", "told"), USERS)
def test_what_the_user_can_mend_has_status_2(error: Exception, told: str) -> None:
    found = failure(error)
    assert found is not None
    assert told in found.message
    assert found.status == 2


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("mat1 and mat2 shapes cannot be multiplied"),
        KeyError("loss"),
        AttributeError("no attribute"),
        TypeError("missing argument"),
        ModuleNotFoundError("No module named 'univnet.gan.gone'"),
        AssertionError("never"),
    ],
)
def test_bugs_are_not_hidden(error: Exception) -> None:
    assert failure(error) is None


@pytest.fixture
def ended(capsys: pytest.CaptureFixture[str]) -> Callable[..., SimpleNamespace]:
    def run(*argv: Any) -> SimpleNamespace:
        with pytest.raises(SystemExit) as ending:
            main([str(arg) for arg in argv])
        lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("univnet: error: ")]
        assert len(lines) == 1
        return SimpleNamespace(status=ending.value.code, told=lines[0])

    return run


def test_out_of_memory_in_training_names_the_verb_and_saves(
    ended: Callable[..., Any], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, calls = Generator.forward, []

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        calls.append(1)
        if len(calls) > 2:
            torch.empty(1 << 60)  # what no machine has
        return usual(self, *args, **kwargs)

    monkeypatch.setattr(Generator, "forward", forward)
    options = ["--trainer.max_steps", 9, "--trainer.limit_val_batches", 0, "--checkpoint_last.every_n_train_steps", 1]
    end = ended("fit", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path, *options)
    assert end.status == 3
    assert "find-batch-size" in end.told
    assert load(tmp_path / "small" / "version_0" / "checkpoints" / "last.ckpt")["global_step"] == 2


def test_a_killed_worker_is_told_and_the_last_state_saved(
    ended: Callable[..., Any], config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual, here = SegmentDataset.__getitem__, os.getpid()
    drawn = tmp_path / "drawn"

    def draw(self: Any, *args: Any) -> Any:
        if os.getpid() != here:
            with drawn.open("a") as file:
                file.write("x")
            if drawn.stat().st_size > 4:
                os.kill(os.getpid(), signal.SIGKILL)
        return usual(self, *args)

    monkeypatch.setattr(SegmentDataset, "__getitem__", draw)
    options = ["--trainer.max_steps", 9, "--trainer.limit_val_batches", 0, "--data.num_workers", 1]
    end = ended("fit", "--config", config, "--trainer.logger.init_args.save_dir", tmp_path, *options)
    assert end.status == 3
    assert "a process that loads data has died" in end.told
    assert load(tmp_path / "small" / "version_0" / "checkpoints" / "last.ckpt")["global_step"] >= 1


def test_a_full_disk_is_told(config: Path, tmp_path: Path) -> None:
    """A limit on the size of files stands for it: the system's answer is of the same kind."""
    program = (
        "import resource, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40000, 40000)); "
        "from univnet.cli import main; main(sys.argv[1:])"
    )
    argv = ["fit", "--config", str(config), "--trainer.logger.init_args.save_dir", str(tmp_path)]
    argv += ["--trainer.limit_val_batches", "0", "--trainer.max_steps", "2"]
    source = os.pathsep.join([str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")])
    end = subprocess.run(
        [sys.executable, "-c", program, *argv],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert end.returncode == 3, end.stderr
    assert "Traceback" not in end.stderr
    assert "last.ckpt (File too large)" in end.stderr
    assert "make room" in end.stderr


def test_a_file_of_weights_alone_is_refused(
    refused: Callable[..., str], trained: SimpleNamespace, config: Path, tmp_path: Path
) -> None:
    last = load(trained.checkpoints / "last.ckpt")
    for part in ("optimizer_states", "lr_schedulers", "gan", "loops", "callbacks"):
        last.pop(part)
    torch.save(last, tmp_path / "weights.ckpt")
    told = refused("fit", "--config", config, "--ckpt_path", tmp_path / "weights.ckpt")
    assert "training cannot go on from this checkpoint, which lacks" in told
    assert "--init_from" in told


@pytest.mark.parametrize("logger", ["WandbLogger", "CometLogger", "MLFlowLogger"])
def test_a_missing_package_is_named(refused: Callable[..., str], config: Path, logger: str) -> None:
    told = refused("fit", "--config", config, "--trainer.logger", f"lightning.pytorch.loggers.{logger}")
    assert "pip install" in told
    assert "Traceback" not in told
