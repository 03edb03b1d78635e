"""One process at a time has a folder; one that has died does not."""

import multiprocessing
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from univnet.common.lock import FolderInUseError, FolderLock


def hold(folder: Path, said: Any) -> None:
    FolderLock(folder).acquire()
    child = os.fork()  # a loader's worker, say
    said.send(child)
    if not child:
        signal.pause()
    signal.pause()


def test_another_process_is_refused_by_name_until_the_holder_is_dead(tmp_path: Path) -> None:
    forked = multiprocessing.get_context("fork")
    heard, said = forked.Pipe(duplex=False)
    holder = forked.Process(target=hold, args=(tmp_path / "a" / "b", said))
    holder.start()
    workers = {heard.recv(), heard.recv()} - {0}
    try:
        with pytest.raises(FolderInUseError) as told:
            FolderLock(tmp_path / "a" / "b").acquire()
        assert f"{tmp_path / 'a' / 'b'} is in use by process {holder.pid} on {socket.gethostname()}" in str(told.value)
        holder.kill()
        holder.join()
        lock = FolderLock(tmp_path / "a" / "b")
        lock.acquire()  # though its worker is still alive
        lock.acquire()  # held already
        lock.release()
        assert not list((tmp_path / "a" / "b").iterdir())
        lock.release()
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def test_it_can_be_taken_again_after_it_was_given_back(tmp_path: Path) -> None:
    for _ in range(3):
        lock = FolderLock(tmp_path)
        lock.acquire()
        assert f"process {os.getpid()}" in (tmp_path / ".lock").read_text()
        lock.release()
