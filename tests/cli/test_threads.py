"""What OpenMP is told in the process of a verb, as it says itself."""

import os
import re
import subprocess
import sys

import pytest
from support import ROOT

from univnet.cli.runs.threads import sleep_while_waiting

CONSOLE = [sys.executable, "-c", "from univnet.cli import main; main()"]


def told(command: list[str], **chosen: str) -> dict[str, str]:
    """Return OpenMP's settings in the process of a verb that loads torch and then refuses its arguments."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment = kept | {"OMP_DISPLAY_ENV": "verbose"} | chosen
    ran = subprocess.run(
        [*command, "--device", "nowhere"], env=environment, cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 2, ran.stderr
    found = dict(re.findall(r"(\w+) = '(\w+)'", ran.stderr))
    if "GOMP_SPINCOUNT" not in found:
        pytest.skip("this torch is not built with GNU's OpenMP")
    return found


@pytest.mark.parametrize("command", [[*CONSOLE, "benchmark", "lvc"], [sys.executable, "scripts/benchmark.py", "lvc"]])
def test_threads_of_a_verb_sleep_while_they_wait(command: list[str]) -> None:
    assert told(command)["OMP_WAIT_POLICY"] == "PASSIVE"


@pytest.mark.parametrize(
    ("chosen", "settings"),
    [
        ({"OMP_WAIT_POLICY": "active"}, {"OMP_WAIT_POLICY": "ACTIVE"}),
        ({"GOMP_SPINCOUNT": "77"}, {"GOMP_SPINCOUNT": "77"}),
    ],
)
def test_the_users_choice_stands(chosen: dict[str, str], settings: dict[str, str]) -> None:
    found = told([*CONSOLE, "benchmark", "lvc"], **chosen)
    assert {name: found[name] for name in settings} == settings


def test_a_process_that_has_loaded_torch_is_left_alone() -> None:
    environment: dict[str, str] = {}
    sleep_while_waiting(environment)
    assert environment == {}
