"""Peak memory does not grow with the accumulation K."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support import PROGRAMS


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_peak_memory_is_flat_in_k(tmp_path: Path) -> None:
    script = PROGRAMS / "memory_run.py"
    environment = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536"}  # freed tensors go back to the system at once
    peaks = {}
    for k in (1, 8):
        command = [sys.executable, script, tmp_path, str(k)]
        peaks[k] = int(subprocess.check_output(command, env=environment, text=True, timeout=200).split()[-1])
    assert peaks[1] > 2**26
    assert peaks[8] == pytest.approx(peaks[1], rel=0.03)
