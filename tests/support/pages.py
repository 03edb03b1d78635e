"""Pages of documentation: their blocks of code, the pictures that they show, and the scripts that make these."""

import importlib
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

DOCS = Path(__file__).parents[2] / "docs"


def blocks(page: str) -> list[tuple[str, str]]:
    """Return each block's language and text."""
    return re.findall(r"```(\w+)\n(.*?)```", (DOCS / page).read_text(), re.DOTALL)


def pictures(page: str) -> set[Path]:
    return {DOCS / path for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", (DOCS / page).read_text())}


def links(page: str) -> set[str]:
    """Return the files of the repository that it links to."""
    return set(re.findall(r"\]\((?!http|#)([^)#]+)", (DOCS / page).read_text()))


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script of the docs, and what it imports from beside it, for one test."""
    monkeypatch.syspath_prepend(str(DOCS))
    for own in {path.stem for path in DOCS.glob("*.py")} & sys.modules.keys():
        monkeypatch.delitem(sys.modules, own)
    return importlib.import_module(name)
