"""A process that ends does not wait for ever for its loader workers."""

import atexit
import multiprocessing.util  # first: what is registered after its own exit handler, which waits, runs before it
import time

_PATIENCE = 3.0  # seconds that workers have to end by themselves


def end_workers_at_exit() -> None:
    """See to it, once, that daemonic processes are killed at exit if they do not end: frozen, or waiting for a disk."""
    atexit.unregister(_end_workers)
    atexit.register(_end_workers)


def _end_workers() -> None:
    workers = [process for process in multiprocessing.active_children() if process.daemon]
    for worker in workers:
        worker.terminate()
    end = time.monotonic() + _PATIENCE
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
        if worker.is_alive():
            worker.kill()
