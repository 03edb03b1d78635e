"""A child process keeps to its budget, and its parent survives whatever it does."""

import ctypes
import faulthandler
import gc
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from univnet.gan.tuner.forked import OutOfBudgetError, run_in_child
from univnet.gan.tuner.memory import default_budget, usage

MIB = 2**20
ME = Path("/proc/self")


@pytest.fixture(autouse=True)
def _only_what_is_held() -> None:
    """Give back what earlier tests have freed: a child would use it again, and seem to take nothing."""
    gc.collect()
    with suppress(AttributeError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)


def budget(more: int) -> int:
    """What this process holds, and so many MiB more."""
    return usage(ME).total + more * MIB


def test_the_result_comes_back_and_nothing_else() -> None:
    there: list[int] = []
    state = torch.get_rng_state()

    def function() -> tuple[int, torch.Tensor]:
        there.append(1)
        return os.getpid(), torch.rand(3)

    (process, numbers), _ = run_in_child(function, budget(300))
    assert process != os.getpid()
    assert not there
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(torch.rand(3), numbers)


def test_an_allocation_fails_before_the_budget_is_exceeded() -> None:
    # In a process of its own: a large one's child maps library pages faster than the parent looks at it.
    script = """
        import json
        from pathlib import Path
        import torch
        from univnet.gan.tuner.forked import OutOfBudgetError, run_in_child
        from univnet.gan.tuner.memory import usage
        MIB = 2**20
        eat = lambda mebibytes: lambda: len([torch.ones(MIB // 4) for _ in range(mebibytes)])
        budget = lambda mebibytes: usage(Path("/proc/self")).total + mebibytes * MIB
        budgets = {more: budget(more) for more in (150, 200, 300)}
        count, memory = run_in_child(eat(150), budget(300))
        try:
            run_in_child(eat(400), budget(300))
        except OutOfBudgetError as error:
            print(json.dumps([budgets, count, memory, str(error), error.memory, budget(300)]))
    """
    said = run_script(script).communicate(timeout=100)[0]
    budgets, count, memory, message, reached, most = json.loads(said)
    assert count == 150
    assert budgets["150"] - 20 * MIB < memory < budgets["300"]
    assert "DefaultCPUAllocator: can't allocate memory" in message
    assert budgets["200"] < reached <= most


def test_what_a_childs_own_children_hold_counts() -> None:
    def function() -> None:
        for _ in range(2):  # each may hold so much, but not both
            if os.fork() == 0:
                held = [torch.ones(MIB // 4) for _ in range(200)]
                time.sleep(60)
                os._exit(len(held))
        time.sleep(60)

    began = time.monotonic()
    with pytest.raises(OutOfBudgetError, match="would be more than the budget"):
        run_in_child(function, budget(300))
    assert time.monotonic() - began < 50  # it was stopped, and did not end by itself


@pytest.mark.parametrize(
    ("number", "kind"),
    [(signal.SIGKILL, OutOfBudgetError), (signal.SIGSEGV, RuntimeError), (signal.SIGABRT, RuntimeError)],
)
def test_a_child_that_is_killed(number: int, kind: type) -> None:
    def function() -> None:  # a kernel that is out of memory sends SIGKILL
        faulthandler.disable()
        os.kill(os.getpid(), number)

    with pytest.raises(kind, match=f"ended by signal {signal.Signals(number).name}") as caught:
        run_in_child(function, budget(1000))
    assert type(caught.value) is kind


def test_a_child_that_dies_of_failed_allocations() -> None:
    def function() -> None:
        faulthandler.disable()
        os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
        os.abort()

    with pytest.raises(OutOfBudgetError, match="SIGABRT"):
        run_in_child(function, budget(1000))


def test_its_errors_are_raised_as_they_are() -> None:
    def function() -> None:
        raise KeyError("key")

    with pytest.raises(KeyError, match="key") as caught:
        run_in_child(function, budget(300))
    assert "in function" in caught.value.__notes__[0]

    class LocalError(Exception):
        pass

    def local() -> None:
        raise LocalError("cannot be pickled")

    with pytest.raises(RuntimeError, match="LocalError: cannot be pickled"):
        run_in_child(local, budget(300))
    with pytest.raises(RuntimeError, match="cannot send its result"):
        run_in_child(lambda: lambda: 1, budget(300))


def test_a_budget_that_is_spent_already() -> None:
    with pytest.raises(ValueError, match=r"a memory budget of 1 MiB is no more than the \d+ MiB that this process"):
        run_in_child(lambda: 1, MIB)


def run_script(script: str, *arguments: str, **environment: str) -> subprocess.Popen:
    command = [sys.executable, "-c", textwrap.dedent(script), *arguments]
    return subprocess.Popen(command, env={**os.environ, **environment}, stdout=subprocess.PIPE, text=True)


def test_threads_of_openmp_do_not_hang_the_child() -> None:
    script = """
        import torch
        from univnet.gan.tuner.forked import run_in_child
        work = lambda: float((torch.ones(900, 900) @ torch.ones(900, 900)).relu().sum())
        print(torch.get_num_threads(), work() == run_in_child(work, 2**40)[0])
    """
    process = run_script(script, OMP_NUM_THREADS="2")
    assert process.communicate(timeout=100)[0].split() == ["2", "True"]


def test_a_child_dies_with_its_parent(tmp_path: Path) -> None:
    script = """
        import os, pathlib, sys, time
        from univnet.gan.tuner.forked import run_in_child
        def function():
            pathlib.Path(sys.argv[1]).write_text(str(os.getpid()))
            time.sleep(100)
        run_in_child(function, 2**40)
    """
    told = tmp_path / "pid"
    process = run_script(script, str(told), TMPDIR=str(tmp_path))  # what a killed parent cannot remove
    wait_until(lambda: told.exists() and told.read_text())
    child = Path("/proc", told.read_text())
    assert child.exists()
    process.kill()
    process.wait()
    wait_until(lambda: not child.exists() or "\nState:\tZ" in (child / "status").read_text())


def wait_until(condition: Callable[[], Any], seconds: float = 60) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


GIB = 2**30


def machine(root: Path, files: dict[str, str]) -> Path:
    """Return a folder that looks like /, of a machine with 8 GiB free and a process that holds 1 GiB."""
    own = f"VmRSS: {2**20} kB\nRssAnon: {2**19} kB\nRssFile: {2**19} kB\nRssShmem: 0 kB\nVmData: 9 kB\nVmHWM: 9 kB\n"
    files = {"proc/meminfo": f"MemTotal: 9 kB\nMemAvailable: {8 * 2**20} kB\n", "proc/self/status": own, **files}
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_the_default_budget_of_a_machine(tmp_path: Path) -> None:
    assert default_budget(root=machine(tmp_path, {})) == GIB + int(0.9 * 8 * GIB)
    assert default_budget(4, machine(tmp_path, {})) == GIB + int(0.9 * 2 * GIB)


def test_the_default_budget_of_a_cgroup_version_2(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "0::/a/b\n",
        "sys/fs/cgroup/a/b/memory.max": "max\n",
        "sys/fs/cgroup/a/b/memory.current": "7\n",
        "sys/fs/cgroup/a/memory.max": f"{6 * GIB}\n",  # the limit of the one above counts
        "sys/fs/cgroup/a/memory.current": f"{4 * GIB}\n",
        "sys/fs/cgroup/a/memory.stat": f"anon 5\ninactive_file {2 * GIB}\n",
    }
    assert default_budget(root=machine(tmp_path, files)) == GIB + int(0.9 * 4 * GIB)


def test_the_default_budget_of_a_cgroup_version_1_seen_from_a_container(tmp_path: Path) -> None:
    files = {
        "proc/self/cgroup": "12:cpu,cpuacct:/x\n4:memory:/docker/of-the-host\n0::/\n",
        "sys/fs/cgroup/memory/memory.limit_in_bytes": f"{3 * GIB}\n",
        "sys/fs/cgroup/memory/memory.usage_in_bytes": f"{2 * GIB}\n",
        "sys/fs/cgroup/memory/memory.stat": f"inactive_file 1\ntotal_inactive_file {GIB}\n",
    }
    assert default_budget(root=machine(tmp_path, files)) == GIB + int(0.9 * 2 * GIB)


def test_the_default_budget_here() -> None:
    assert usage(ME).total < default_budget() < os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
