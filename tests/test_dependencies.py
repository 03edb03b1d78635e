"""What is imported is declared, what is declared is imported, and both files of constraints fit the declarations."""

import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import support
from support import ROOT
from support.source import imports

import univnet

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
# Declared although the package does not import them.
NEEDED = {
    "jsonargparse": "LightningCLI is made of it",
    "pdoc": "docs/api.py writes the pages of `make docs` with it",
    "tensorboard": "TensorBoardLogger, the default logger, writes with it",
}
SKIPS_WITHOUT = {"cargan"}  # a test names it to pytest.importorskip
COMMANDS = {"mypy", "ruff", "pytest-timeout", "pytest-xdist", "setuptools"}  # pytest's plugins, and what builds
# Imported by the package although only ``dev`` brings them.
OPTIONAL = {
    "transformers": "a peer of the benchmark, which leaves it out where it is missing",
    "onnxruntime": "runs exported graphs in the benchmark, which says so where it is missing",
}


def plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def bounds(requirements: list[str]) -> dict[str, tuple[str, str]]:
    """Return the lowest version and the first too high by name; every requirement must be of this form.

    An extra that is made of others names the project itself, without a version.
    """
    found = {}
    for each in requirements:
        if each.startswith(f"{PROJECT['name']}["):
            continue
        match = re.fullmatch(r"([\w-]+)(?:\[\w+\])?>=([\d.]+)(?:,<([\d.]+))?", each)
        assert match, each
        found[plain(match[1])] = match[2], match[3] or "99999"
    return found


def pins(name: str) -> dict[str, str]:
    lines = (ROOT / name).read_text().splitlines()
    assert lines == sorted(lines, key=str.lower)
    assert all(re.fullmatch(r"[\w.-]+==[\w.+]+", line) for line in lines)
    return {plain(line.split("==")[0]): line.split("==")[1] for line in lines}


def number(version: str) -> tuple[int, ...]:
    parts = [int(part) for part in re.match(r"\d+(\.\d+)*", version)[0].split(".")]
    while parts[-1:] == [0]:
        parts.pop()
    return tuple(parts)


RUN_TIME = bounds(PROJECT["dependencies"])
DECLARED = {"run time": RUN_TIME, **{name: bounds(each) for name, each in PROJECT["optional-dependencies"].items()}}


def imported(*folders: str) -> set[str]:
    """Return the names of the distributions that the files in ``folders`` import."""
    files = [path for folder in folders for path in (ROOT / folder).rglob("*.py")]
    assert files
    names = {name.split(".")[0] for path in files for name in imports(path.read_text())}
    ours = {"univnet", "support", *(path.stem for path in (ROOT / "docs").glob("*.py"))}  # these import each other
    homes = packages_distributions()
    foreign = names - ours - set(sys.stdlib_module_names)
    assert foreign <= homes.keys(), f"not installed: {foreign - homes.keys()}"
    # A namespace that several distributions share stands for the one that is named like it.
    return {plain(min(homes[name], key=lambda home: plain(home) != plain(name))) for name in foreign}


def test_what_the_package_imports_is_declared() -> None:
    undeclared = imported("univnet") - RUN_TIME.keys()
    for extra, declared in DECLARED.items():
        undeclared -= declared.keys() if extra not in ("run time", "dev") else set()
    assert undeclared <= OPTIONAL.keys() & DECLARED["dev"].keys()


def test_what_is_declared_is_imported() -> None:
    declared = {name for extra, each in DECLARED.items() if extra != "dev" for name in each}
    assert declared - imported("univnet") <= NEEDED.keys()


def test_what_tests_import_is_declared_and_the_other_way_round() -> None:
    declared = {name for each in DECLARED.values() for name in each}
    used = imported("univnet", "tests", "scripts", "docs")
    assert used <= declared
    assert DECLARED["dev"].keys() - used <= COMMANDS | SKIPS_WITHOUT


@pytest.mark.parametrize("extra", DECLARED)
def test_constraints_are_within_bounds(extra: str) -> None:
    newest, lowest = pins("constraints.txt"), pins("constraints-lowest.txt")
    for name, (least, limit) in DECLARED[extra].items():
        assert number(least) <= number(newest[name]) < number(limit), name
        assert number(least) == number(lowest[name]), name


def test_programs_that_tests_start_import_the_same_package(tmp_path: Path) -> None:
    code = "import support, univnet; print(univnet.__file__, support.__file__)"
    said = subprocess.check_output([sys.executable, "-c", code], text=True, cwd=tmp_path)
    assert said.split() == [univnet.__file__, support.__file__] == [
        str(ROOT / name / "__init__.py") for name in ("univnet", "tests/support")
    ]  # fmt: skip
