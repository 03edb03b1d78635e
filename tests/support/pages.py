"""The pages that people read: their blocks, run or parsed, and what they link to."""

import importlib.util
import re
import runpy
import shlex
from argparse import ArgumentParser
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import yaml
from lightning.pytorch.cli import LightningArgumentParser

from support import ROOT
from univnet.cli import main

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


def text(name: str) -> str:
    return (ROOT / name).read_text()


def section(page: str, heading: str) -> str:
    """Return what stands under a heading of the second level."""
    return page.split(f"\n## {heading}\n")[1].split("\n## ")[0]


def blocks(page: str, *languages: str) -> list[Block]:
    """Return the fenced blocks of a page's text, of these languages or of all."""
    found = re.findall(r"^```(\w*)\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    return [Block(*each) for each in found if not languages or each[0] in languages]


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


def script(name: str) -> Any:
    """Return the module of ``docs/NAME.py``."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _expanded(word: str) -> list[str]:
    return sorted(map(str, Path().glob(word))) or [word] if "*" in word else [word]
