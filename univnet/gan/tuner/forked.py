"""Run a function in a child process that may fill a budget of memory and no more, and survive whatever it does.

On the CPU, running out of memory means being killed, by a kernel that chooses its victims itself. The child is given a
limit by which its allocations *fail* before the budget is exceeded, and is killed where that does not hold it.
"""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NoReturn

from univnet.gan.tuner.memory import descendants, is_out_of_memory, private, reason, usage

_POLL = 0.01  # seconds between two looks at the child
_POLL_WORKERS = 0.1  # and at its loader workers, which is dearer
_GUARD = 16 * 2**20  # bytes below the budget at which the child's allocations fail; at the budget it is killed
_NEAR = 0.9  # a child that dies without a word at this share of its budget died of its limit
_PR_SET_PDEATHSIG = 1
_STDERR = "stderr"


class OutOfBudgetError(MemoryError):
    """The child's memory ran out: it was told so, had to be stopped, or died of it.

    Attributes:
        memory: the most that was in use, in bytes.
    """

    memory: int | None = None


def available() -> bool:
    """Whether this system can limit a child's memory; elsewhere than on Linux a function is run where it is."""
    return sys.platform == "linux"


def run_in_child(function: Callable[[], Any], budget: int, spare: int = 0) -> tuple[Any, int]:
    """Return what ``function`` returns in a fork of this process, and the most memory that took, in bytes.

    The budget covers what this process holds already (which the child shares), what the child adds, and what processes
    that the child starts add. What the child does to objects and random numbers stays in the child.

    Args:
        function: what to run.
        budget: bytes.
        spare: bytes to leave out of all accounts, as they would not be needed outside a child.

    Raises:
        OutOfBudgetError: an allocation failed, or the child was killed, by the kernel or for going over the budget.
        RuntimeError: the child died of something else, or what it raised or returned cannot be pickled.
        ValueError: this process alone holds more than the budget.
        Exception: whatever the child raised.
    """
    child = _Child(function, budget, spare)
    # The fork comes from a fresh thread. OpenMP keeps its threads by the thread that they work for; those of the main
    # thread do not exist in a fork of it, which would wait for them for ever. The fresh thread is the fork's main one.
    # It lives as long as the child, which dies with it.
    thread = threading.Thread(target=child.run, daemon=True)
    thread.start()
    try:
        child.ended.wait()  # and not for the thread: a join that Ctrl-C interrupts takes it for ended
    except BaseException:
        child.stopped = True
        child.ended.wait()
        raise
    if child.error is not None:
        raise child.error
    return child.value, child.peak


class _Child:
    """A child, seen from its parent."""

    def __init__(self, function: Callable[[], Any], budget: int, spare: int) -> None:
        self.function, self.budget, self.spare = function, budget, spare
        self.stopped, self.ended = False, threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.peak = 0
        self._workers, self._workers_seen = 0, 0.0

    def run(self) -> None:
        try:
            # In a folder of its own, as loader workers that are killed leave files behind.
            with tempfile.TemporaryDirectory(prefix="univnet-", ignore_cleanup_errors=True) as folder:
                self._run(folder)
        except BaseException as error:
            self.error = error
            if isinstance(error, OutOfBudgetError):
                error.memory = self.peak
        finally:
            self.ended.set()

    def _run(self, folder: str) -> None:
        now = usage(Path("/proc/self"))
        self._files = now.files  # which the child maps anew, as it comes to use them
        self.peak = now.total
        # The kernel limits what a process asks for, touched or not (`now.data`); it may ask for so much more.
        free = self.budget - _GUARD + self.spare - now.total
        self._limit = now.data + free + now.files
        if free <= 0:
            raise ValueError(
                f"a memory budget of {self._mebibytes} is no more than the {now.total / 2**20:.0f} MiB that this "
                f"process holds before it trains: raise it"
            )
        context = multiprocessing.get_context("fork")
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_child_main, args=(self.function, sender, Path(folder), os.getpid(), free))
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*fork.*", category=DeprecationWarning)  # Python 3.12
            process.start()
        assert process.pid is not None
        try:
            sender.close()
            self._watch(process, receiver, Path(folder))
        finally:
            process.kill()
            with contextlib.suppress(OSError):
                os.killpg(process.pid, signal.SIGKILL)  # its loader workers
            process.join()
            process.close()
            receiver.close()
            sys.stderr.write(_said(Path(folder)))

    def _watch(self, process: Any, receiver: Connection, folder: Path) -> None:
        while not self.stopped:
            with contextlib.suppress(ProcessLookupError):
                self._look(process.pid)
            exitcode = process.exitcode  # looked at first, as the last that a child does is to send its result
            if receiver.poll(_POLL):
                with contextlib.suppress(EOFError):
                    return self._take(*pickle.loads(receiver.recv_bytes()))
            if exitcode is not None:
                self._raise_why_it_ended(exitcode, _said(folder))

    def _look(self, pid: int) -> None:
        """Measure the child, stop it where it is over the budget, and limit what it may still ask for."""
        folder = Path("/proc", str(pid))
        now = usage(folder)
        if time.monotonic() - self._workers_seen > _POLL_WORKERS:
            self._workers = sum(private(each) for each in descendants(folder))
            self._workers_seen = time.monotonic()
        total = self._total(now.total)
        self.peak = max(self.peak, total)
        if total > self.budget:
            raise OutOfBudgetError(f"{total / 2**20:.0f} MiB would be more than the budget of {self._mebibytes}")
        limit = self._limit - (self._files + now.files) - self._workers
        resource.prlimit(pid, resource.RLIMIT_DATA, (max(limit, 0), resource.RLIM_INFINITY))

    def _total(self, child: int) -> int:
        return child + self._files + self._workers - self.spare

    def _take(self, value: Any, error: BaseException | None, peak: int) -> None:
        self.peak = max(self.peak, self._total(peak) - self._workers)  # theirs was another moment's
        if error is not None and is_out_of_memory(error, self._scarce):
            raise OutOfBudgetError(reason(error)) from error
        if error is not None:
            raise error
        self.value = value

    def _raise_why_it_ended(self, exitcode: int, said: str) -> NoReturn:
        how = f"signal {signal.Signals(-exitcode).name}" if exitcode < 0 else f"exit status {exitcode}"
        ended = f"the process of a trial ended by {how}, having used {self.peak / 2**20:.0f} MiB"
        if exitcode == -signal.SIGKILL or self._scarce or is_out_of_memory(RuntimeError(said)):
            raise OutOfBudgetError(f"{ended} of {self._mebibytes}")
        raise RuntimeError(ended)

    @property
    def _scarce(self) -> bool:
        return self.peak >= _NEAR * self.budget

    @property
    def _mebibytes(self) -> str:
        return f"{self.budget / 2**20:.0f} MiB"


def _child_main(function: Callable[[], Any], sender: Connection, folder: Path, parent: int, free: int) -> None:
    os.setpgrp()  # Ctrl-C is for the parent, which kills this group
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    tempfile.tempdir = str(folder)
    with (folder / _STDERR).open("w") as file:
        os.dup2(file.fileno(), 2)
    me = Path("/proc/self")
    resource.setrlimit(resource.RLIMIT_DATA, (usage(me).data + free, resource.RLIM_INFINITY))
    value, error = None, None
    try:
        value = function()
    except BaseException as caught:
        error = _portable(caught)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    peak = usage(me).peak
    try:
        result = pickle.dumps((value, error, peak))
    except Exception as cannot:
        result = pickle.dumps((None, RuntimeError(f"the process of a trial cannot send its result: {cannot}"), peak))
    sender.send_bytes(result)


def _said(folder: Path) -> str:
    path = folder / _STDERR
    return path.read_text(errors="replace") if path.exists() else ""


def _portable(error: BaseException) -> BaseException:
    """Return ``error`` as it can be sent, with its traceback as a note."""
    text = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is not type(error) or str(copy) != str(error):
            raise TypeError("it does not come back as it was")
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"In the process of a trial:\n{text}")
    return copy
