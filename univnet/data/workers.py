"""Loader processes that die are told of where the next batch is waited for.

torch raises the error in whatever the main process is doing when a worker dies: in the middle of an update, or of
writing a log. There the state of training cannot be saved any more; where a batch is waited for, it can.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

from torch.utils.data._utils import signal_handling

_CHILD = getattr(signal, "SIGCHLD", None)  # Windows has none
_PATIENCE = 0.5  # seconds


class _Watch:
    """Takes the place of torch's handler of SIGCHLD."""

    waiting = False  # for a batch
    before: Any = None

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.waiting:
            _check()
        if callable(self.before):
            self.before(number, frame)


_watch = _Watch()


def _check() -> None:
    """Raise an error if a worker has died.

    What ended it may be about to end this process, too, as a signal to the whole group does: then that comes first.
    """
    try:
        signal_handling._error_if_any_worker_fails()
    except RuntimeError:
        time.sleep(_PATIENCE)
        raise


def _put_in_place() -> None:
    """Take over from torch's handler, or come before it: it is set once in a process, by the first loader."""
    if _CHILD is None or threading.current_thread() is not threading.main_thread():
        return
    if (now := signal.getsignal(_CHILD)) is not _watch:
        torchs = getattr(now, "__module__", None) == signal_handling.__name__
        _watch.before = None if torchs else now
        signal.signal(_CHILD, _watch)
        signal_handling._SIGCHLD_handler_set = True


def batches_of(iterate: Callable[[], Iterator[Any]]) -> Iterator[Any]:
    """Yield the batches of the iterator that ``iterate`` makes, which may start worker processes.

    Raises:
        RuntimeError: a worker has died; raised while a batch is waited for, and nowhere else.
    """
    _put_in_place()
    batches = iterate()
    while True:
        _watch.waiting = True
        try:
            _check()
            batch = next(batches)
        except StopIteration:
            return
        except (ConnectionError, EOFError, FileNotFoundError):
            # A worker that dies while it hands a tensor over breaks the connection before the system tells of its end.
            time.sleep(_PATIENCE)
            signal_handling._error_if_any_worker_fails()
            raise
        finally:
            _watch.waiting = False
        yield batch
