"""Signals that end a run in good order: a handler only takes note, and the run stops where its state is whole."""

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Iterable
from multiprocessing.queues import Queue
from types import FrameType
from typing import Any

NUMBERS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP") if hasattr(signal, name))


class Stopped(SystemExit):
    """A signal has ended the run; the exit status is 128 and its number, as a shell would have it.

    Attributes:
        signal: its number.
        whole: whether the state may still be saved: not where a second Ctrl-C ended a micro-batch within.
    """

    def __init__(self, number: int, whole: bool = True) -> None:
        super().__init__(128 + number)
        self.signal, self.whole = number, whole


class StopSignals:
    """Takes note of the first signal that asks for an end, and takes the handlers back when the run is over.

    SIGHUP that is ignored, as after ``nohup``, stays ignored. Handlers that there were before are called as well.

    Args:
        more: numbers of further signals that ask for an end.
        tells: say on stderr that the first signal was heard, where the micro-batch under way is finished first.

    Attributes:
        asked: the signal's number; 0 until there was one.
        at_once: nothing under way has to be finished first, so a signal raises ``Stopped`` right away.
    """

    def __init__(self, more: Iterable[int] = (), tells: bool = False) -> None:
        self._numbers = {*NUMBERS, *more}
        self._before: dict[int, Any] = {}
        self._process = os.getpid()
        self._tells = tells
        self.asked, self.at_once = 0, True

    def install(self) -> None:
        """Take the signals over, where handlers can be set: in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            return
        for number in self._numbers:
            before = signal.getsignal(number)
            if not (before is signal.SIG_IGN and number == getattr(signal, "SIGHUP", None)):
                self._before[number] = before
                signal.signal(number, self._on_signal)

    def restore(self) -> None:
        """Give the signals back; one that came too late to be obeyed is sent again."""
        before, self._before = self._before, {}
        for number, handler in before.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        asked, self.asked = self.asked, 0
        if asked and before:
            os.kill(os.getpid(), asked)

    def obeyed(self) -> None:
        """The run is ending: signals that still come change nothing, but Ctrl-C ends the process."""
        self.asked, self.at_once = 0, False
        for number in self._before:
            ends = number == signal.SIGINT and not _sent_twice()
            signal.signal(number, signal.SIG_DFL if ends else signal.SIG_IGN)

    def obey(self) -> None:
        """Raise ``Stopped`` if a signal has asked for it."""
        if self.asked:
            raise Stopped(self.asked)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a loader's worker, before it has handlers of its own
            return
        again, self.asked = self.asked, self.asked or number
        if self._tells and not (again or self.at_once):
            _tell(number)
        previous = self._before.get(number)
        if callable(previous) and previous is not signal.default_int_handler:
            previous(number, frame)
        if again and number == signal.SIGINT and not _sent_twice():
            raise Stopped(number, whole=False)
        if self.at_once and not _is_putting(frame):
            raise Stopped(self.asked)


def _tell(number: int) -> None:
    """Say that the signal was heard: a micro-batch can take minutes.

    Not by print or logging: the handler may have interrupted one of them, which then holds its lock or buffer.
    """
    second = "; a second Ctrl-C ends at once, without saving" if number == signal.SIGINT and not _sent_twice() else ""
    line = f"\nunivnet: {signal.Signals(number).name}: saving after this micro-batch{second}\n"  # below the bar
    with contextlib.suppress(OSError):  # stderr may be closed, or its reader gone
        os.write(2, line.encode())


def _is_putting(frame: FrameType | None) -> bool:
    """Whether something is being put into a queue: raised there, an error can leave its lock taken, and exit hangs."""
    while frame is not None and frame.f_code is not Queue.put.__code__:
        frame = frame.f_back
    return frame is not None


def _sent_twice() -> bool:
    """Whether Ctrl-C reaches this process twice by itself: ``torchrun`` passes on what the terminal has sent."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def requeue() -> str:
    """Have SLURM put this job into its queue again; return what to tell about it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    job = f"{array}_{task}" if array and task else os.environ["SLURM_JOB_ID"]
    try:
        answer = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, timeout=60, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"SLURM's job {job} could not be queued again: {error}"
    if answer.returncode:
        return f"SLURM's job {job} could not be queued again: {answer.stderr.strip() or answer.returncode}"
    return f"SLURM's job {job} is queued again"
