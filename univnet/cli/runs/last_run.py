"""Which run ``--ckpt_path last`` and ``auto`` go on with, and how its folder is made ready for that."""

import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.utilities import rank_zero_info, rank_zero_only

from univnet.cli.messages import UsageError
from univnet.common.files import write_text
from univnet.common.lock import FolderLock
from univnet.gan.endurance.logs import rewind_csv
from univnet.gan.endurance.newest import Whole, newest_whole

_JOB = "slurm_job.txt"  # in a run's folder: the job whose run it is


def find_checkpoint(asked: str | None, logger: Any) -> Path | None:
    """Return the checkpoint that ``asked`` for, ``None`` where a new run is to begin.

    ``last`` and ``auto`` stand for the run with the most updates, among those that ``logger`` would write beside, and
    its ``last.ckpt``, or its newest whole checkpoint where that one is damaged or missing. Without any, ``last`` is
    refused and ``auto`` begins a new run. A job that SLURM has queued again goes on with its own run, whatever was
    asked for at first.

    Raises:
        UsageError: there is nothing to go on from, or no folder to look into.
    """
    loggers = _with_folders(logger)
    folder = _folder_of(loggers[0]) if loggers else None
    if folder is not None and (own := _requeued(folder)):
        return own.path
    if asked not in ("last", "auto"):
        return Path(asked) if asked else None
    if folder is None:
        raise UsageError(f"--ckpt_path {asked} needs a logger with a save_dir; else name the checkpoint file itself")
    found = _newest(_runs(folder))
    if found is None and asked == "last":
        raise UsageError(f"--ckpt_path last: there is no last.ckpt under {folder}; leave it out to start afresh")
    if found is None:
        rank_zero_info(f"univnet: there is no checkpoint under {folder} yet: a new run begins")
    return found and found.path


def continue_in(folder: Path, logger: Any, checkpoint: Mapping[str, Any]) -> None:
    """Have ``logger`` write to the run's ``folder`` again, whose logs are cut back to its ``checkpoint``.

    Raises:
        FolderInUseError: a process writes there.
    """
    _refuse_if_in_use(folder / "checkpoints")
    for each in _with_folders(logger):
        each.init_args.version = folder.name
    _set_metrics_aside(folder, checkpoint.get("gan", {}).get("logs", {}))


@rank_zero_only
def note_job(folder: Path) -> None:
    """Note in a run's folder which of SLURM's jobs it is, if it is one."""
    if job := os.environ.get("SLURM_JOB_ID"):
        write_text(folder / _JOB, f"{job}\n")


def _requeued(folder: Path) -> Whole | None:
    """Return the checkpoint of the run of this very job, where SLURM has queued it again."""
    if not int(os.environ.get("SLURM_RESTART_COUNT") or 0):
        return None
    job = os.environ.get("SLURM_JOB_ID")
    return _newest([run for run in _runs(folder) if _job_of(run) == job])


def _runs(folder: Path) -> list[Path]:
    return sorted({path.parent.parent for path in folder.glob("*/checkpoints/*.ckpt")})


def _folder_of(logger: Any) -> Path:
    return Path(logger.init_args.save_dir) / (logger.init_args.get("name") or "")


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
            f"update {latest.steps}: name it to go on there"
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


def _with_folders(logger: Any) -> list[Any]:
    """Return the configurations of those of the trainer's loggers that write to a folder."""
    loggers = logger if isinstance(logger, list) else [logger]
    return [each for each in loggers if hasattr(each, "get") and (each.get("init_args") or {}).get("save_dir")]


@rank_zero_only
def _refuse_if_in_use(folder: Path) -> None:
    lock = FolderLock(folder)
    lock.acquire()
    lock.release()


@rank_zero_only
def _set_metrics_aside(folder: Path, marks: Mapping[str, int]) -> None:
    metrics = folder / "metrics.csv"  # CSVLogger deletes the one that it finds
    if metrics.exists():
        rewind_csv(metrics, marks)
        metrics.rename(folder / f"metrics-{len(list(folder.glob('metrics-*.csv'))) + 1}.csv")
