"""Small but whole training runs that are killed, stopped and gone on with, and compared with the one that never was.

Each start is a process of its own, forked from one that has loaded torch and Lightning. What a run leaves behind is
compared bit for bit: weights, optimizers, schedules, averages, random numbers, the state of all callbacks, every scalar
that TensorBoard shows, and the best checkpoint.
"""

import contextlib
import faulthandler
import logging
import multiprocessing
import os
import resource
import signal
import socket
import sys
import tempfile
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import torch
from lightning.pytorch import Callback, seed_everything
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities import rank_zero_only
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader
from tensorboard.util import tensor_util
from torch.utils.data import Dataset

from support.resuming import Validated, plateaus, schedulers
from support.toy import ToyGAN, quiet_trainer, toy_data
from univnet.callbacks import LastCheckpoint
from univnet.data import EpochSampler, ResumableDataLoader
from univnet.data.datamodule import _leave_stopping_to_the_trainer
from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, Updates
from univnet.gan.endurance.newest import newest_whole

HOOKS = (
    *("setup", "on_fit_start", "on_train_start", "on_train_epoch_start", "on_fetch_start", "on_train_batch_start"),
    *("on_train_batch_end", "on_micro_batch_end", "on_validation_start", "on_validation_batch_start"),
    *("on_validation_batch_end", "on_validation_end", "on_train_epoch_end", "on_save_checkpoint", "on_train_end"),
)
FILES = ("open", "os.rename", "os.remove", "os.truncate", "os.mkdir")  # Python's names for what may be interrupted
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGHUP)


@dataclass(frozen=True)
class Plan:
    """What is trained: some 25 micro-batches in epochs of ten."""

    updates: tuple[int, int] = (3, 2)
    validate_every: int = 4
    plateaus: bool = True
    averages: tuple[str, ...] = ("ema", "swa")
    workers: int = 0
    save_every: int = 3
    end: dict[str, int] = field(default_factory=lambda: {"max_epochs": 3})
    stop_early: bool = False
    elsewhere: bool = False  # $TMPDIR on another file system
    precision: str = "32-true"
    room: int | None = None  # bytes that any one file may have

    @classmethod
    def drawn(cls, draw: Random) -> "Plan":
        """Return one of many, with unlike periods."""
        updates = draw.choice([(3, 2), (1, 4), (2, 1), (4, 3)])
        return cls(
            updates=updates,
            validate_every=draw.choice([3, 4, 5, 7, 10]),
            plateaus=draw.random() < 0.5,
            averages=draw.choice([("ema", "swa"), ("ema",), ("swa",), ()]),
            workers=draw.choice([0, 0, 1, 2]),
            save_every=draw.choice([1, 2, 3, 1000]),
            end=draw.choice([{"max_epochs": 3}, {"max_steps": 24 // updates[0]}, {"max_steps": 29 // updates[0]}]),
            stop_early=draw.random() < 0.2,
            elsewhere=draw.random() < 0.5,
            precision=draw.choice(["32-true", "64-true"]),
        )


@dataclass(frozen=True)
class Blow:
    """How a start is ended: ``what`` is sent by itself at the n-th call of a hook or file event, or after a time."""

    what: int
    where: str
    when: float
    to_all: bool = False  # to its workers, too

    @classmethod
    def drawn(cls, draw: Random, usual: float, whats: tuple[int, ...] = (signal.SIGKILL,)) -> "Blow":
        """Return one at a random hook, at a random file event, or at a random instant of a run that takes ``usual``."""
        what, kind = draw.choice(whats), draw.random()
        if kind < 0.4:
            return cls(what, draw.choice(HOOKS), draw.randint(1, 12))
        if kind < 0.6:
            return cls(what, draw.choice(FILES), draw.randint(1, 40))
        return cls(
            what, "time", draw.uniform(0.1, usual), to_all=draw.random() < 0.5
        )  # not before the process is set up


class Strike(Callback):
    """Sends the blow to this very process at the hook's n-th call."""

    def __init__(self, blow: Blow) -> None:
        self.left, self.blow = int(blow.when), blow
        setattr(self, blow.where, self.count)

    def count(self, *_: Any, **__: Any) -> None:
        self.left -= 1
        if self.left == 0:
            (os.killpg if self.blow.to_all else os.kill)(os.getpid(), self.blow.what)


class Missing(Dataset):
    """Data that cannot be read while ``path`` is there."""

    def __init__(self, path: Path, data: Any) -> None:
        self.path, self.data = path, data

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> Any:
        if self.path.exists():
            raise FileNotFoundError("a file of the validation is gone")
        return self.data[index]


def _strike_at_files(blow: Blow, folder: Path) -> None:
    left, process = [int(blow.when)], os.getpid()

    def hook(event: str, details: tuple) -> None:
        if event == blow.where and os.getpid() == process and str(folder) in str(details[0]):
            left[0] -= 1
            if left[0] == 0:
                os.kill(process, blow.what)

    sys.addaudithook(hook)


def train(
    folder: Path,
    plan: Plan,
    blow: Blow | None = None,
    strategy: Any = "auto",
    watch: Callback | None = None,
    every: int = 4,
    **options: Any,
) -> None:
    """Train to the end, from the newest whole checkpoint in ``folder`` if there is one."""
    seed_everything(5, verbose=False)
    make = plateaus if plan.plateaus else schedulers
    one, other = plan.updates
    longer = other + (options.get("devices", 1) == 1)  # a window that ranks have open is gone on with to rounding
    updates = Updates(one, clip_norm=1.0), Updates({0: other, 1: longer})
    dtype = torch.float64 if plan.precision == "64-true" else torch.float32
    gan: ToyGAN = Validated(*updates, noise=0.5, schedulers=make, dtype=dtype)
    data = toy_data(40, dtype)
    sampler = EpochSampler(data, options.get("devices", 1), int(os.environ.get("LOCAL_RANK", 0)))
    reading: dict[str, Any] = {"num_workers": plan.workers, "worker_init_fn": _leave_stopping_to_the_trainer}
    loader = ResumableDataLoader(data, 4, sampler, **reading)
    validation = ResumableDataLoader(Missing(folder / "missing", toy_data(12, dtype)), 4, shuffle=False, **reading)
    checkpoints = folder / "checkpoints"
    newest = newest_whole(checkpoints.glob("*.ckpt"))
    if newest is None:  # a run from the start has a folder of its own
        for path in folder.glob("*.tfevents.*"):
            path.unlink()
    how: dict[str, Any] = {"auto_insert_metric_name": False, "enable_version_counter": False, "dirpath": checkpoints}
    callbacks: list[Callback] = [
        *([ExponentialMovingAverage(0.9)] if "ema" in plan.averages else []),
        *([StochasticWeightAveraging(5e-3, swa_epoch_start=1)] if "swa" in plan.averages else []),
        *([EarlyStopping("val/l2", patience=1, min_delta=0.05)] if plan.stop_early else []),
        ModelCheckpoint(monitor="val/l2", filename="best", save_on_train_epoch_end=False, **how),
        ModelCheckpoint(every_n_train_steps=every, filename="step_{step}", save_top_k=-1, **how),
        LastCheckpoint(plan.save_every),
        *([watch] if watch else []),
    ]
    if blow is not None and blow.where in HOOKS:
        callbacks.insert(0, Strike(blow))
    elif blow is not None and blow.where in FILES:
        _strike_at_files(blow, folder)
    trainer = quiet_trainer(
        folder,
        logger=TensorBoardLogger(folder, "", "", default_hp_metric=False),
        enable_checkpointing=True,
        callbacks=callbacks,
        val_check_interval=plan.validate_every,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        precision=plan.precision,
        strategy=strategy,
        use_distributed_sampler=False,
        **({"max_epochs": -1} | plan.end | options),
    )
    print(f"from {newest}", flush=True)
    trainer.fit(gan, loader, validation, ckpt_path=newest and newest.path, weights_only=True)


def _child(folder: Path, plan: Plan, blow: Blow | None, rank: int, ranks: int, port: int) -> None:
    os.setpgid(0, 0)  # so that signals can be sent to its workers, too
    torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
    warnings.simplefilter("ignore")
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    sys.stdout = sys.stderr = open(folder / f"said{rank}.txt", "a", buffering=1)  # noqa: SIM115 - to the process's end
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    logger = logging.getLogger("lightning.pytorch")
    logger.handlers, logger.level = [logging.StreamHandler(sys.stderr)], logging.INFO
    print(f"start with {blow} {plan}", flush=True)
    faulthandler.dump_traceback_later(60)  # what a run that hangs waits for
    if plan.elsewhere and os.path.isdir("/dev/shm"):
        os.environ["TMPDIR"], tempfile.tempdir = "/dev/shm", None
    if plan.room is not None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (plan.room, resource.RLIM_INFINITY))
    if ranks == 1:
        train(folder, plan, blow)
        return
    local = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "GROUP_RANK": 0}
    os.environ |= {name: str(value) for name, value in local.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "endurance"}
    rank_zero_only.rank = rank  # found when Lightning was imported
    train(folder, plan, blow, DDPStrategy(process_group_backend="gloo"), devices=ranks)


def start(folder: Path, plan: Plan, blow: Blow | None = None, patience: float = 120.0) -> int:
    """Start the run in a process of its own; return its exit status (−9 for a kill).

    Raises:
        TimeoutError: it does not end.
    """
    return start_ranks(folder, plan, {0: blow} if blow else {}, ranks=1, patience=patience)[0]


def start_ranks(
    folder: Path, plan: Plan, blows: dict[int, Blow] | None = None, ranks: int = 2, patience: float = 120.0
) -> list[int]:
    """Start a run of so many gloo ranks, as ``torchrun`` would; return their exit statuses.

    Raises:
        TimeoutError: one of them does not end.
    """
    blows = blows or {}
    folder.mkdir(parents=True, exist_ok=True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    fork = multiprocessing.get_context("fork").Process
    processes = [fork(target=_child, args=(folder, plan, blows.get(rank), rank, ranks, port)) for rank in range(ranks)]
    for process in processes:
        process.start()
    try:
        for rank, blow in blows.items():
            if blow.where == "time":
                processes[rank].join(blow.when)
                if processes[rank].exitcode is None:
                    with contextlib.suppress(ProcessLookupError):
                        (os.killpg if blow.to_all else os.kill)(processes[rank].pid or 0, blow.what)
        until = time.monotonic() + patience
        for process in processes:
            process.join(max(0.0, until - time.monotonic()))
        if any(process.exitcode is None for process in processes):
            raise TimeoutError(f"{folder}: the run has not ended {patience:g} s after {blows}")
        return [process.exitcode or 0 for process in processes]
    finally:
        for process in processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid or 0, signal.SIGKILL)  # also a killed one's workers, which see to it in seconds
            process.join()


def said(folder: Path, rank: int = 0) -> str:
    """Return what a rank of the run has written to its terminal, at all its starts."""
    return (folder / f"said{rank}.txt").read_text()


def scalars(folder: Path) -> list[tuple[str, int, float]]:
    """Return every scalar in TensorBoard's files, in the order written, whatever steps they are of."""
    found = []
    for path in sorted(folder.glob("*.tfevents.*"), key=lambda path: path.name.split(".")[3:]):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.HasField("tensor"):
                    found.append((value.tag, event.step, float(tensor_util.make_ndarray(value.tensor))))
    return found


def leavings(folder: Path, best: bool = True) -> dict[str, Any]:
    """Return what a run has left behind, in a form to compare."""
    checkpoints = folder / "checkpoints"
    last = torch.load(checkpoints / "last.ckpt", weights_only=True)
    last["gan"].pop("logs")
    weights = torch.load(checkpoints / "best.ckpt", weights_only=True)["state_dict"] if best else {}
    callbacks = {
        key.replace(str(folder), ""): {
            name: str(value).replace(str(folder), "") if "path" in name or "model" in name else value
            for name, value in state.items()
            if name != "current_score"  # which Lightning saves and does not load
        }
        for key, state in last.pop("callbacks").items()
    }
    for name in ("loops", "epoch"):  # Lightning's counts, which are written from gan's position
        last.pop(name)
    return {
        "last": last,
        "callbacks": callbacks,
        "best": weights,
        "scalars": scalars(folder),
        "files": sorted(path.name for path in checkpoints.iterdir() if path.name != ".lock"),
    }
