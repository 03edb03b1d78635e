"""Which run ``--ckpt_path last``, ``auto`` and a run's folder go on with, and how that folder is made ready.

A run is a folder with a folder ``checkpoints`` in it; runs of one name lie beside each other.
"""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from univnet.common.files import write_text
from univnet.common.lock import FolderLock
from univnet.gan.endurance.logs import rewind_csv
from univnet.gan.endurance.newest import Whole, newest_whole

_JOB = "slurm_job.txt"  # in a run's folder: the job whose run it is


def find_checkpoint(asked: str | None, folder: Path | None) -> Path | None:
    """Return the checkpoint that ``asked`` for, ``None`` where a new run is to begin.

    ``last`` and ``auto`` stand for the run with the most updates of those in ``folder``, and its ``last.ckpt``, or its
    newest whole checkpoint where that one is damaged or missing. Without any, ``last`` is refused and ``auto`` begins a
    new run. The folder of a run in ``folder`` stands for that run. A job that SLURM has queued again goes on with its
    own run, whatever was asked for at first.

    Raises:
        ValueError: there is nothing to go on from, or no folder to look into.
    """
    if folder is not None and (own := _requeued(folder)):
        return own.path
    if asked not in ("last", "auto"):
        return _named(Path(asked), folder) if asked else None
    if folder is None:
        raise ValueError(f"--ckpt_path {asked} needs a logger with a save_dir; else name the checkpoint file itself")
    found = _newest(_runs(folder))
    if found is None and asked == "last":
        raise ValueError(f"--ckpt_path last: there is no last.ckpt under {folder}; leave it out to start afresh")
    if found is None:
        rank_zero_info(f"univnet: there is no checkpoint under {folder} yet: a new run begins")
    return found and found.path


@rank_zero_only
def continue_in(run: Path, checkpoint: Mapping[str, Any]) -> None:
    """Make ``run`` ready to be gone on with from ``checkpoint``: a CSV log is cut back to it and set aside.

    Raises:
        FolderInUseError: a process writes there.
    """
    lock = FolderLock(run / "checkpoints")
    lock.acquire()
    lock.release()
    metrics = run / "metrics.csv"  # CSVLogger deletes the one that it finds
    if metrics.exists():
        rewind_csv(metrics, checkpoint.get("gan", {}).get("logs", {}))
        metrics.rename(run / f"metrics-{len(list(run.glob('metrics-*.csv'))) + 1}.csv")


@rank_zero_only
def note_job(run: Path) -> None:
    """Note in the folder of ``run`` which of SLURM's jobs it is, if it is one."""
    if job := os.environ.get("SLURM_JOB_ID"):
        write_text(run / _JOB, f"{job}\n")


def _named(asked: Path, folder: Path | None) -> Path:
    """Return the checkpoint ``asked`` for: a file is itself, a run's folder stands for its last one."""
    if not asked.is_dir():
        return asked
    if folder is None or asked.resolve().parent != folder.resolve():
        where = f"the runs of this configuration are in {folder}" if folder else "this configuration has none"
        raise ValueError(f"--ckpt_path {asked} is no folder of a run ({where}): name a checkpoint file instead")
    found = _of_run(asked)
    if found is None:
        raise ValueError(f"--ckpt_path {asked}: there is no whole checkpoint in {asked / 'checkpoints'}")
    return found.path


def _requeued(folder: Path) -> Whole | None:
    """Return the checkpoint of the run of this very job, where SLURM has queued it again."""
    if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return None
    job = os.environ.get("SLURM_JOB_ID")
    return _newest([run for run in _runs(folder) if _job_of(run) == job])


def _runs(folder: Path) -> list[Path]:
    return sorted({path.parent.parent for path in folder.glob("*/checkpoints/*.ckpt")})


def _newest(runs: list[Path]) -> Whole | None:
    """Return the checkpoint to go on from of the run with the most updates."""
    answers = [found for run in runs if (found := _of_run(run)) is not None]
    if not answers:
        return None
    best = max(answers, key=lambda found: (found.steps, found.path.stat().st_mtime))
    latest = max(answers, key=lambda found: found.path.stat().st_mtime)
    if latest.steps < best.steps:
        rank_zero_info(
            f"univnet: goes on from {best.path}, of update {best.steps}; {latest.path} was written later, but is of "
            f"update {latest.steps}: --ckpt_path {latest.path.parent.parent} goes on there"
        )
    return best


def _of_run(run: Path) -> Whole | None:
    last = run / "checkpoints" / "last.ckpt"
    if last.exists() and (found := newest_whole([last], _tell)) is not None:
        return found
    others = [path for path in last.parent.glob("*.ckpt") if path != last]
    found = newest_whole(others)
    if found is not None:
        rank_zero_info(f"univnet: {last} is missing or damaged; {found.path}, of update {found.steps}, is whole")
    return found


@rank_zero_only
def _tell(path: Path, error: Exception) -> None:
    warnings.warn(str(error) if str(path) in str(error) else f"{path} is damaged: {error}", stacklevel=2)


def _job_of(run: Path) -> str | None:
    try:
        return (run / _JOB).read_text(encoding="utf-8").strip()
    except OSError:
        return None
