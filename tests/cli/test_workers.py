"""A process of ours ends although a worker of it is frozen."""

import os
import signal
import subprocess
import sys

from support import ROOT

FROZEN = """
import multiprocessing, os, signal, sys, time
from univnet.cli import main

worker = multiprocessing.get_context("fork").Process(target=time.sleep, args=(1000,), daemon=True)
worker.start()
os.kill(worker.pid, signal.SIGSTOP)
print(worker.pid, flush=True)
main(["--help"])
"""


def test_a_frozen_worker_is_killed_at_exit() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", FROZEN], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    pid = int(ran.stdout.splitlines()[0])
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    raise AssertionError("the worker is still there")
