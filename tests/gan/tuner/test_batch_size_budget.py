"""On the CPU, the batch size that is found within a budget trains within it, as the kernel counts."""

import json
import os
import subprocess
import sys
from typing import Any

from support import PROGRAMS

SCRIPT = PROGRAMS / "budget_run.py"


def start(*arguments: Any) -> subprocess.Popen:
    command = [sys.executable, str(SCRIPT), *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def result(process: subprocess.Popen) -> dict[str, Any]:
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err[-3000:]
    return json.loads(out.splitlines()[-1])


def test_the_size_found_trains_an_epoch_within_the_budget_and_a_larger_one_does_not() -> None:
    found = result(start("find", 250))
    largest, budget, trials = found["largest"], found["budget"], {each["size"]: each for each in found["trials"]}
    assert found["found"] == int(0.95 * largest)
    assert trials[largest]["fits"]
    assert not trials[largest + 1]["fits"]
    assert all(each["memory"] <= budget for each in trials.values())
    exact, larger = (result(run) for run in [start("train", size) for size in (found["found"], largest * 3 // 2)])
    assert exact["steps"] > larger["steps"] >= 2
    assert exact["memory"] < budget < larger["memory"]
