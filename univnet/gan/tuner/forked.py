"""Run a function in a child process with a memory budget.

On the CPU, a process that runs out of memory is killed by the kernel, which may also kill others. The child gets a
limit that makes its allocations *fail* before the budget is exceeded; if it exceeds the budget all the same, the parent
kills it.
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

_POLL_SECONDS = 0.01  # between two measurements of the child
_POLL_WORKERS_SECONDS = 0.1  # between two measurements of its loader workers, which take longer
_RESERVE = 16 * 2**20  # bytes below the budget at which the child's allocations fail; at the budget it is killed
_SCARCE = 0.9  # a child that dies without a message at this share of its budget ran out of memory
_PR_SET_PDEATHSIG = 1
_STDERR_FILE = "stderr"


class OutOfBudgetError(MemoryError):
    """The child ran out of memory: an allocation failed, or the child was killed.

    Attributes:
        memory: peak memory in bytes.
    """

    memory: int | None = None


def available() -> bool:
    """Whether this system can limit a child's memory: only Linux can."""
    return sys.platform == "linux"


def run_in_child(function: Callable[[], Any], budget: int, spare: int = 0) -> tuple[Any, int]:
    """Run ``function`` in a fork of this process; return its result and the peak memory in bytes.

    The budget covers what this process holds already (the child shares it) and what the child and its own child
    processes add. The child's changes to objects and random numbers do not reach this process.

    Args:
        function: the function to run.
        budget: in bytes.
        spare: bytes that are not counted, because they would not be needed outside a child.

    Raises:
        OutOfBudgetError: if an allocation failed, or the child was killed by the kernel or for exceeding the budget.
        RuntimeError: if the child died for another reason, or its result or exception cannot be pickled.
        ValueError: if this process alone holds more than the budget.
        Exception: any exception that the child raised.
    """
    child = _Child(function, budget, spare)
    # A new thread forks. OpenMP binds its worker threads to the thread that they work for; those of the main thread do
    # not exist in a fork, which would wait for them for ever. The new thread is the only one in the fork. It must live
    # as long as the child, which dies with it.
    thread = threading.Thread(target=child.run, daemon=True)
    thread.start()
    try:
        child.ended.wait()  # not thread.join(): after Ctrl-C that takes the thread for ended
    except BaseException:
        child.stopped = True
        child.ended.wait()
        raise
    if child.error is not None:
        raise child.error
    return child.value, child.peak


class _Child:
    """The child process, as the parent sees it."""

    def __init__(self, function: Callable[[], Any], budget: int, spare: int) -> None:
        self.function, self.budget, self.spare = function, budget, spare
        self.stopped, self.ended = False, threading.Event()
        self.value: Any = None
        self.error: BaseException | None = None
        self.peak = 0
        self._workers, self._workers_seen = 0, 0.0

    def run(self) -> None:
        try:
            # A folder for the child alone, because killed loader workers leave files behind.
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
        self._files = now.files  # the child maps them again when it uses them
        self.peak = now.total
        # The kernel limits requested memory, used or not (now.data); the child may request this much more.
        free = self.budget - _RESERVE + self.spare - now.total
        self._limit = now.data + free + now.files
        if free <= 0:
            raise ValueError(
                f"a memory budget of {self._mebibytes} is no more than the {now.total / 2**20:.0f} MiB that this "
                f"process holds before training: raise the budget"
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
            sys.stderr.write(_stderr(Path(folder)))

    def _watch(self, process: Any, receiver: Connection, folder: Path) -> None:
        while not self.stopped:
            with contextlib.suppress(ProcessLookupError):
                self._measure(process.pid)
            exitcode = process.exitcode  # read first, because the child sends its result just before it exits
            if receiver.poll(_POLL_SECONDS):
                with contextlib.suppress(EOFError):
                    return self._receive(*pickle.loads(receiver.recv_bytes()))
            if exitcode is not None:
                self._raise_why_it_ended(exitcode, _stderr(folder))

    def _measure(self, pid: int) -> None:
        """Measure the child, stop it if it is over the budget, and limit what it may still request."""
        folder = Path("/proc", str(pid))
        now = usage(folder)
        if time.monotonic() - self._workers_seen > _POLL_WORKERS_SECONDS:
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

    def _receive(self, value: Any, error: BaseException | None, peak: int) -> None:
        self.peak = max(self.peak, self._total(peak) - self._workers)  # the workers' peak may be at another time
        if error is not None and is_out_of_memory(error, self._scarce):
            raise OutOfBudgetError(reason(error)) from error
        if error is not None:
            raise error
        self.value = value

    def _raise_why_it_ended(self, exitcode: int, stderr: str) -> NoReturn:
        how = f"signal {signal.Signals(-exitcode).name}" if exitcode < 0 else f"exit status {exitcode}"
        ended = f"the process of a trial ended by {how}, having used {self.peak / 2**20:.0f} MiB"
        if exitcode == -signal.SIGKILL or self._scarce or is_out_of_memory(RuntimeError(stderr)):
            raise OutOfBudgetError(f"{ended} of {self._mebibytes}")
        raise RuntimeError(ended)

    @property
    def _scarce(self) -> bool:
        return self.peak >= _SCARCE * self.budget

    @property
    def _mebibytes(self) -> str:
        return f"{self.budget / 2**20:.0f} MiB"


def _child_main(function: Callable[[], Any], sender: Connection, folder: Path, parent: int, free: int) -> None:
    os.setpgrp()  # only the parent gets Ctrl-C; it kills this group
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)
    tempfile.tempdir = str(folder)
    with (folder / _STDERR_FILE).open("w") as file:
        os.dup2(file.fileno(), 2)
    me = Path("/proc/self")
    resource.setrlimit(resource.RLIMIT_DATA, (usage(me).data + free, resource.RLIM_INFINITY))
    value, error = None, None
    try:
        value = function()
    except BaseException as caught:
        error = _picklable(caught)
    resource.setrlimit(resource.RLIMIT_DATA, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    peak = usage(me).peak
    try:
        result = pickle.dumps((value, error, peak))
    except Exception as cannot:
        result = pickle.dumps((None, RuntimeError(f"the process of a trial cannot send its result: {cannot}"), peak))
    sender.send_bytes(result)


def _stderr(folder: Path) -> str:
    path = folder / _STDERR_FILE
    return path.read_text(errors="replace") if path.exists() else ""


def _picklable(error: BaseException) -> BaseException:
    """Return ``error``, or a replacement that can be pickled, with its traceback as a note."""
    text = "".join(traceback.format_exception(error))
    try:
        copy = pickle.loads(pickle.dumps(error))
        if type(copy) is not type(error) or str(copy) != str(error):
            raise TypeError("pickling changes it")
    except Exception:
        copy = RuntimeError(f"{type(error).__name__}: {error}")
    copy.add_note(f"In the process of a trial:\n{text}")
    return copy
