"""Which failures are told in a sentence, whose they are, and with which exit status. Real bugs keep their traceback."""

import errno
import re
from typing import NamedTuple

from univnet.cli.messages import EXIT_STATUS, UsageError, one_line, reason_of_union
from univnet.common.files import NO_ROOM

MACHINE = 3  # the exit status where the machine fell short: memory, disk, a process that was killed

_OF_THE_MACHINE = (*NO_ROOM, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EROFS, errno.ESTALE)
_WORKER = re.compile(r"DataLoader worker \(pid\(?s?\)? ?[^)]*\) (exited unexpectedly|is killed by signal: .*?\.)")
_MISSING = re.compile(r"No module named '([\w.]+)'")
_STOPPING = re.compile(r"Early stopping conditioned on metric `([^`]*)` which is not available\.(.*)")
_NUMBERED = re.compile(r"_\d+$|/(lr|updates|nonfinite|gradient_norm)$")
_MEMORY = (
    "lower data.batch_size (the verb find-batch-size finds what fits) or data.segment_length, and make up for it with "
    "generator_updates.accumulate"
)


class Failure(NamedTuple):
    """What to tell of an exception.

    Attributes:
        message: a sentence: what, which option or file, the mend.
        status: the exit status.
    """

    message: str
    status: int


def failure(error: Exception) -> Failure | None:
    """Return what to tell of ``error``, ``None`` if it is a bug and its traceback tells more."""
    message = one_line(reason_of_union(str(error)))
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return Failure(_no_room(error, message), MACHINE)
    if isinstance(error, ConnectionError):  # of ranks
        return Failure(message, MACHINE)
    if isinstance(error, RuntimeError) and (found := _WORKER.search(message)):
        why = "of too little shared memory (/dev/shm)" if "us error" in message else "for lack of memory"
        return Failure(
            f"a process that loads data has died ({found[0].rstrip('.')}), most often {why}: lower data.num_workers; "
            "where training had begun, the line above says how to go on",
            MACHINE,
        )
    if _of_memory(error):
        return Failure(f"out of memory ({message}): {_MEMORY}", MACHINE)
    if isinstance(error, ImportError):
        return _import_failure(error, message)
    if isinstance(error, RuntimeError) and (stopping := _STOPPING.search(message)):
        return Failure(
            f"EarlyStopping: no metric {stopping[1]!r} is logged; name as its monitor one of {_few(stopping[2])}",
            EXIT_STATUS,
        )
    if isinstance(error, UsageError | ValueError | OSError) or _is_mistake(error):
        return Failure(message, EXIT_STATUS)
    return None


def _no_room(error: OSError, message: str) -> str:
    if error.errno not in NO_ROOM or "make room" in message:  # checkpoints say which of them is whole
        return message
    where = f" for {error.filename}" if error.filename else ""
    return (
        f"there is no room left{where} ({error.strerror}): make room; "
        "where training had begun, the line above says how to go on"
    )


def _of_memory(error: Exception) -> bool:
    if not isinstance(error, MemoryError | RuntimeError | OSError):
        return False
    from univnet.gan.tuner.memory import is_out_of_memory  # only now: it needs torch, which takes seconds to load

    return is_out_of_memory(error)


def _import_failure(error: ImportError, message: str) -> Failure | None:
    missing = _MISSING.search(message)
    if missing and missing[1].partition(".")[0] != "univnet":
        package = missing[1].partition(".")[0]
        return Failure(f"this needs {package}, which is not installed: pip install {package}", EXIT_STATUS)
    return Failure(message, EXIT_STATUS) if message.startswith("this needs ") else None


def _is_mistake(error: Exception) -> bool:
    # Imported only now: some verbs need no Lightning.
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    from univnet.gan import NonFiniteError

    return isinstance(error, MisconfigurationException | NonFiniteError)


def _few(names: str) -> str:
    """Return Lightning's list of metrics without those that nobody watches."""
    listed = re.findall(r"`([^`]+)`", names)
    return ", ".join(name for name in listed if not _NUMBERED.search(name))
