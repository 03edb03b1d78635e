"""What stands around the code: how to contribute, cite and build it, and what hosted CI runs."""

import os
import re
import subprocess
import sys
import tomllib
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from support import ROOT

import univnet.gan

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
PATHS = sorted(set(re.findall(r"`((?:univnet|tests|docs|scripts)/[\w/.]*|[\w-]+\.(?:txt|toml))`", CONTRIBUTING)))


def targets() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


@pytest.mark.parametrize("path", PATHS)
def test_paths_that_contributors_are_sent_to_exist(path: str) -> None:
    assert len(PATHS) > 25
    assert (ROOT / path).exists()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("univnet.gan.averaging.base", "Averaging"),
        ("univnet.gan.averaging.checkpoint", "KINDS"),
        ("univnet.gan.norm_limit", "NormLimit"),
        ("univnet.gan.play.settings", "Updates"),
        ("univnet.losses", "AdversarialLoss"),
        ("univnet.models.base", "BaseGenerator"),
        ("univnet.models.base", "BaseDiscriminator"),
        ("univnet.models.registry", "register_generator"),
        ("univnet.metrics", "FAMILIES"),
        ("univnet.data.corpora", "CORPORA"),
        ("univnet.data.corpora", "_has_layout"),
        ("univnet.data.preparing.download", "DOWNLOADS"),
        ("univnet.cli", "VERBS"),
        ("univnet.gan", "_MODULES"),
    ],
)
def test_names_that_contributors_are_told_exist(module: str, name: str) -> None:
    assert f"`{name}`" in CONTRIBUTING or f"`@{name}`" in CONTRIBUTING
    assert hasattr(import_module(module), name)


@pytest.mark.parametrize("page", ["CONTRIBUTING.md", "CHANGELOG.md", "docs/examples/README.md"])
def test_links_lead_somewhere(page: str) -> None:
    text, folder = (ROOT / page).read_text(), (ROOT / page).parent
    links = re.findall(r"\]\((?!http|#)([^)#]+)", text)
    assert links
    assert not [link for link in links if not (folder / link).exists()]
    assert set(re.findall(r"(?:^|`)make ([a-z-]+)", text, re.MULTILINE)) <= targets()


def test_the_changelog_has_what_is_to_come_and_this_version() -> None:
    versions = re.findall(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[:2] == ["Unreleased", PROJECT["version"]]


def test_the_citation_is_of_this_version_and_of_the_paper() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors"} <= cited.keys()  # what the format demands
    assert (cited["title"], cited["version"], cited["license"]) == (
        PROJECT["name"], PROJECT["version"], PROJECT["license"],
    )  # fmt: skip
    [paper] = cited["references"]
    assert "2106.07889" in paper["url"]
    assert "2106.07889" in str(univnet.__doc__)


def test_hosted_ci_runs_what_contributors_run() -> None:
    workflow: dict[Any, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())
    assert {"push", "pull_request"} == set(workflow[True])  # YAML 1.1 reads the key `on` so
    [job] = workflow["jobs"].values()
    least = PROJECT["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python"][0] == least
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_container_runs_the_demo() -> None:
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    steps = [line.split(maxsplit=1) for line in lines]
    assert [step for step, _ in steps] == ["FROM", "RUN", "WORKDIR", "COPY", "RUN", "CMD"]
    assert steps[0][1] == f"python:{PROJECT['requires-python'].removeprefix('>=')}-slim"
    made = [
        target for _, line in steps for target in re.findall(r'\bmake"?,? "?([a-z-]+)', line) if target in targets()
    ]
    assert made == ["install", "demo"]
    for step, line in steps:
        if step == "RUN":
            assert subprocess.run(["sh", "-n", "-c", line], check=False).returncode == 0


def test_a_folder_of_the_packages_name_does_not_hide_it(tmp_path: Path) -> None:
    """As that of a clone, for a Python that is started beside it."""
    (tmp_path / "univnet").mkdir()
    command = [sys.executable, "-c", "import univnet; print(univnet.Vocoder.__name__)"]
    ran = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ran.stdout == "Vocoder\n", ran.stderr
