"""The pages that people read: their blocks, run or parsed, what they link to, and the scripts beside them.

A page goes by its path from the repository's folder, or from ``docs``.
"""

import importlib
import re
import runpy
import shlex
import sys
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple
from unittest import mock

import pytest
import yaml
from lightning.pytorch.cli import LightningArgumentParser

from support import ROOT
from univnet.cli import main

DOCS = ROOT / "docs"
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHELL_WORDS = {"for", "do", "done", "wait"}


class Block(NamedTuple):
    language: str
    code: str

    @property
    def lines(self) -> list[str]:
        """Those that are not blank."""
        return [line for line in self.code.splitlines() if line.strip()]


class ParsedError(Exception):
    """Arguments were understood; raised in place of what they ask for."""


def file(page: str) -> Path:
    return ROOT / page if (ROOT / page).exists() else DOCS / page


def text(page: str) -> str:
    return file(page).read_text()


def blocks(page: str, *languages: str, under: str | None = None) -> list[Block]:
    """Return the fenced blocks of a page, of these languages or of all, under a heading of the second level."""
    content = text(page)
    if under is not None:
        content = content.split(f"\n## {under}\n")[1].split("\n## ")[0]
    found = [Block(*each) for each in FENCE.findall(content)]
    return [block for block in found if not languages or block.language in languages]


def links(page: str) -> set[str]:
    """Return what a page links to inside the repository, without anchors but for those in the page itself."""
    return {link.partition("#")[0] or link for link in _targets(page)}


def anchored(page: str) -> dict[str, str]:
    """Return the headings that a page links to, by links."""
    return {link: link.partition("#")[2] for link in _targets(page) if "#" in link}


def pictures(page: str) -> set[Path]:
    """Return the pictures that a page shows."""
    return {file(page).parent / path for path in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", _prose(page))}


def commands(code: str) -> list[list[str]]:
    """Return what a shell would start, each as its words, without comments, loops and variables in front."""
    found = []
    for line in code.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_0-9]+=.*", words[0]):
            words.pop(0)
        if words and words[0] not in SHELL_WORDS:
            found.append(words[:-1] if words[-1] == "&" else words)
    return found


def run(block: Block, names: dict[str, Any], more: Mapping[str, Sequence[str]] | None = None) -> None:
    """Run a block here: Python with ``names`` at hand, which it adds to; or commands, ``more`` for each verb.

    Of commands that are not this package's, the arguments are checked.
    """
    if block.language == "python":
        exec(block.code, names)
        return
    for words in commands(block.code):
        program, *argv = [match for word in words for match in _expanded(word)]
        if program == "univnet":
            main([*argv, *(more or {}).get(argv[0], ())])
        elif program == "python":
            with mock.patch("sys.argv", argv):
                runpy.run_path(str(ROOT / argv[0]), run_name="__main__")
        else:
            check(words)


def check(words: Sequence[str]) -> None:
    """Check that what a shell would start exists and takes these arguments, without doing what it does."""
    program, *argv = [re.sub(r"\$\w+", "1", word) for word in words]
    if program == "make":
        assert re.search(rf"^{argv[0]}:", text("Makefile"), re.MULTILINE), words
    elif program == "pip":
        assert argv[0] == "install", words
        for extras in re.findall(r"\[(.+)\]", argv[1]):
            assert all(f"\n{extra} = [" in text("pyproject.toml") for extra in extras.split(",")), words
    elif program == "tensorboard":
        from tensorboard.program import TensorBoard

        TensorBoard().configure(["tensorboard", *argv])
    elif program == "python" and argv[0].startswith("docs/"):
        assert (ROOT / argv[0]).is_file(), words
    else:
        assert program in ("univnet", "python"), words
        with parsing_alone():
            try:
                run(Block("sh", shlex.join([program, *argv])), {})
            except ParsedError:
                return
        raise AssertionError(f"{words} was not parsed")


@contextmanager
def parsing_alone() -> Iterator[None]:
    """Let every verb end with ``ParsedError`` when it has understood its arguments."""

    def ended(parse: Any) -> Any:
        def parsed(self: Any, *args: Any, **kwargs: Any) -> Any:
            parse(self, *args, **kwargs)
            raise ParsedError

        return parsed

    with (
        mock.patch.object(ArgumentParser, "parse_args", ended(ArgumentParser.parse_args)),
        mock.patch.object(LightningArgumentParser, "parse_args", ended(LightningArgumentParser.parse_args)),
    ):
        yield


def check_yaml(block: Block, folder: Path) -> None:
    """Check that ``fit`` takes a block as a configuration that is laid over the demo's."""
    (folder / "block.yaml").write_text(yaml.safe_dump(yaml.safe_load(block.code)))
    check(["univnet", "fit", "--config", str(ROOT / "configs" / "demo.yaml"), "--config", str(folder / "block.yaml")])


def script(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """Import a script of the docs, and what it imports from beside it, for one test."""
    monkeypatch.syspath_prepend(str(DOCS))
    for own in {path.stem for path in DOCS.glob("*.py")} & sys.modules.keys():
        monkeypatch.delitem(sys.modules, own)
    return importlib.import_module(name)


def _prose(page: str) -> str:
    """Return a page without its blocks and what is in backticks."""
    return re.sub(r"`[^`\n]*`", "", FENCE.sub("", text(page)))


def _targets(page: str) -> list[str]:
    return [link for link in re.findall(r"\]\(([^)\s]+)\)", _prose(page)) if not re.match(r"\w+:", link)]


def _expanded(word: str) -> list[str]:
    return sorted(map(str, Path().glob(word))) or [word] if "*" in word else [word]
