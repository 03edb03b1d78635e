"""What OpenMP is told in the process of a verb, as it says itself."""

import os
import re
import subprocess
import sys

import pytest
from support import ROOT

from univnet.cli.runs.threads import sleep_while_waiting

COMMAND = [sys.executable, "-c", "from univnet.cli import main; main()", "benchmark", "lvc", "--device", "nowhere"]


def told(**chosen: str) -> dict[str, str]:
    """Return OpenMP's settings in the process of a verb that loads torch and then refuses its arguments."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_"))}
    environment = kept | {"OMP_DISPLAY_ENV": "verbose"} | chosen
    ran = subprocess.run(COMMAND, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)
    assert ran.returncode == 2, ran.stderr
    found = dict(re.findall(r"(\w+) = '(\w+)'", ran.stderr))
    if "GOMP_SPINCOUNT" not in found:
        pytest.skip("this torch is not built with GNU's OpenMP")
    return found


def test_threads_of_a_verb_soon_sleep_while_they_wait() -> None:
    assert (told()["OMP_WAIT_POLICY"], told()["GOMP_SPINCOUNT"]) == ("PASSIVE", "2000")


def test_the_users_choice_reaches_openmp() -> None:
    assert told(OMP_WAIT_POLICY="active")["OMP_WAIT_POLICY"] == "ACTIVE"


@pytest.mark.parametrize("chosen", ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME", None])
def test_each_of_the_users_choices_stands(chosen: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "torch")
    environment = {chosen: "77"} if chosen else {}
    expected = dict(environment) or {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}
    sleep_while_waiting(environment)
    assert environment == expected


def test_a_process_that_has_loaded_torch_is_left_alone() -> None:
    environment: dict[str, str] = {}
    sleep_while_waiting(environment)
    assert environment == {}
