"""The newest state of a run, always in one file, and an end in good order when a signal asks for one."""

import shlex
import shutil
import signal
from pathlib import Path
from typing import Any

from lightning.fabric.plugins.environments import LightningEnvironment
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.utilities import rank_zero_info

from univnet.common.files import written_whole
from univnet.common.lock import FolderLock
from univnet.gan.endurance.newest import newest_whole
from univnet.gan.endurance.ranks import RankLostError, Ranks
from univnet.gan.endurance.signals import Stopped, StopSignals, requeue
from univnet.gan.lightning_internals import leave_signals, requeue_signal, validation_is_due


class LastCheckpoint(Checkpoint):
    """Keep ``last.ckpt`` beside the run's other checkpoints, to go on from with ``--ckpt_path``.

    Written after every so many generator updates, before and after every validation, when training ends, and when it
    is stopped. It always holds the state at the end of a micro-batch.

    SIGTERM, Ctrl-C, SIGUSR1 and SIGHUP stop the run at the end of the micro-batch under way (on all ranks at the same
    one), which a line on stderr says at once, or without waiting within a validation, which is then due after the
    resume, and while the next micro-batch is waited for. The exit status is 128 and the signal's number. A second
    Ctrl-C ends the run at once and without saving. Under SLURM the signal that Lightning's ``SLURMEnvironment`` names
    (SIGUSR1) also puts the job into the queue again.

    The folder is locked meanwhile: another run that would write there is refused.

    Args:
        every_n_train_steps: generator updates between two writings.

    Raises:
        ValueError: where that is not a positive number.
    """

    def __init__(self, every_n_train_steps: int = 1000) -> None:
        if every_n_train_steps < 1:
            raise ValueError(f"checkpoint_last.every_n_train_steps must be at least 1, got {every_n_train_steps}")
        self.every_n_train_steps = every_n_train_steps
        self._saved: tuple[int, int] | None = None  # the place at which the file was written, or that it was read at
        self._began = self._told_to_end = False
        self._waits = False  # for the next micro-batch: the state is one to save
        self._signals = StopSignals()
        self._ranks: Ranks | None = None
        self._lock: FolderLock | None = None

    # From hook to hook

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Lock the folder and take the signals over."""
        if stage != "fit":
            return
        self._began, self._waits, self._told_to_end, self._ranks = False, False, False, None
        file = last_file(trainer)  # asked for on every rank
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            self._lock = FolderLock(file.parent)
            self._lock.acquire()
        requeues = requeue_signal(trainer)
        self._signals = StopSignals(() if requeues is None else (requeues,), tells=trainer.is_global_zero)
        self._signals.install()
        leave_signals(trainer, self._signals.restore)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note where the run begins, and meet the other ranks."""
        resumed = trainer.ckpt_path
        as_on_disk = not resumed or Path(resumed).absolute() == last_file(trainer).absolute()
        self._began, self._saved = True, _place(trainer) if as_on_disk else None
        if trainer.world_size > 1:
            self._ranks = Ranks()
        self._signals.obey()
        self._signals.at_once = False

    def on_fetch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here to the micro-batch's beginning a signal has nothing to wait for, with one rank."""
        self._waits = True
        if self._ranks is None:
            self._signals.at_once = True
            self._signals.obey()

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Note that the state is not one to save, and ask the other ranks whether to stop after this micro-batch."""
        self._waits = self._signals.at_once = False
        if self._ranks is not None:
            self._ranks.ask(self._signals.asked)

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Note whether the run was told to end by now, as the other callbacks know it."""
        self._told_to_end = trainer.should_stop

    def on_micro_batch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save where it is due, and stop where a signal asks for it."""
        stop = self._signals.asked if self._ranks is None else self._ranks.answer()
        step, at = trainer.global_step, self._saved[0] if self._saved else 0
        due = step != at and step % self.every_n_train_steps == 0
        ends = trainer.should_stop or step == trainer.max_steps
        if due or stop or ends or validation_is_due(trainer):
            self._save(trainer)
        if stop:
            raise Stopped(stop)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here to its end a signal has nothing to wait for: what there is to save is saved."""
        self._signals.at_once = True
        self._signals.obey()

    def on_validation_batch_start(self, *_: Any) -> None:
        """Stop here where the interpreter has dropped what a signal's handler raised, as it does in some places."""
        self._signals.obey()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on other callbacks save what the validation has shown, which is to be finished."""
        if not trainer.sanity_checking:
            self._signals.at_once = False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save, so that this file is never behind the best one."""
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer, anew=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save what is not saved yet, which averages of a run that a validation has ended are not."""
        self._save(trainer, anew=trainer.should_stop and not self._told_to_end)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over the checkpoint of a run that was over, where a kill came between its writing and this file's."""
        file, resumed = last_file(trainer), Path(trainer.ckpt_path or "")
        if self._began or not trainer.is_global_zero or resumed.absolute().parent != file.absolute().parent:
            return
        whole = newest_whole(file.parent.glob("*.ckpt"))
        if whole is not None and whole.path.name == resumed.name != file.name:
            with written_whole(file) as partial:
                shutil.copyfile(resumed, partial)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Save if the state is one to save: what failed between two micro-batches, a loader say, has not spoilt it.

        Raises:
            RankLostError: the exception is what followed from another rank's death.
        """
        asked = self._signals.asked
        self._signals.obeyed()
        stopped = exception if isinstance(exception, Stopped) else None
        if self._waits and self._ranks is None and (stopped is None or stopped.whole):
            self._save(trainer)
        try:
            if stopped is not None:
                self._say_goodbye(trainer, stopped)
            elif asked and self._ranks is not None and self._ranks.lost(exception):  # the others have heeded it
                raise Stopped(asked) from exception
            elif self._ranks is not None and (lost := self._ranks.lost(exception)):
                self._signals.restore()
                raise RankLostError(f"{lost}, and training cannot go on without: {_go_on(trainer)}") from exception
            elif self._began:
                rank_zero_info(f"univnet: {_go_on(trainer)}")
        finally:
            self.teardown(trainer, pl_module, "fit")

    # The parts

    def _save(self, trainer: Trainer, anew: bool = False) -> None:
        tried_out = trainer.fast_dev_run  # type: ignore[attr-defined]
        if tried_out or (self._saved == _place(trainer) and not anew):
            return
        trainer.save_checkpoint(last_file(trainer), weights_only=False)
        self._saved = _place(trainer)

    def _say_goodbye(self, trainer: Trainer, stopped: Stopped) -> None:
        name = signal.Signals(stopped.signal).name
        if self._ranks is not None and trainer.validating:  # where ranks do not ask each other
            self._ranks.pass_on(signal.SIGTERM if stopped.signal == signal.SIGINT else stopped.signal)
        where = _go_on(trainer) if self._began else "nothing was trained yet"
        rank_zero_info(f"univnet: stopped by {name}: {where}")
        if stopped.signal == requeue_signal(trainer) and trainer.is_global_zero:
            rank_zero_info(f"univnet: {requeue()}")
        environment = getattr(trainer.strategy, "cluster_environment", None)
        if isinstance(environment, LightningEnvironment) and trainer.local_rank:
            stopped.code = 0  # to Lightning, which has started this rank, another status is a crash: it kills them all


def _place(trainer: Trainer) -> tuple[int, int]:
    return trainer.global_step, trainer.fit_loop.epoch_loop.batch_progress.total.completed


def last_file(trainer: Trainer) -> Path:
    """Return where ``last.ckpt`` is, or would be."""
    for other in trainer.checkpoint_callbacks:
        if isinstance(other, ModelCheckpoint) and other.dirpath:
            return Path(other.dirpath, "last.ckpt")
    return Path(trainer.log_dir or trainer.default_root_dir, "checkpoints", "last.ckpt")


def _go_on(trainer: Trainer) -> str:
    """Return how to go on, with what the folder holds."""
    file = last_file(trainer)
    whole = newest_whole(file.parent.glob("*.ckpt"))
    if whole is None:
        return f"there is no checkpoint in {file.parent} yet: start again"
    asked = file.parents[1] if whole.path == file and _is_of_logger(file, trainer) else whole.path
    return f"{whole.path} is of update {whole.steps}: go on with --ckpt_path {shlex.quote(str(asked))}"


def _is_of_logger(file: Path, trainer: Trainer) -> bool:
    """Whether the command line finds ``file`` by its run's folder; ``last`` could stand for another run."""
    runs = [Path(str(each.save_dir or ""), str(each.name or "")) for each in trainer.loggers[:1]]
    return file.parent.name == "checkpoints" and [file.absolute().parents[2]] == [each.absolute() for each in runs]
