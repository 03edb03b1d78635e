"""Every verb's ``--help``: short enough to read, made of the options' own texts, and complete behind ``--help.all``."""

import argparse
import contextlib
import io
import re
import shlex
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch import Trainer
from support import ROOT

from univnet.cli import VERBS, main
from univnet.cli.find_batch_size import Options as BatchSizeOptions
from univnet.cli.find_lr import Options as LROptions
from univnet.cli.help.completion import parser_of
from univnet.cli.help.first_pages import FIRST_PAGES, WORDS
from univnet.cli.help.page import WIDTH, invocation, told
from univnet.cli.help.verb_parser import VerbParser
from univnet.cli.messages import plain_messages

WITH_PARSERS = [name for name in VERBS if name != "demo"]
LINES = {"fit": 100}  # two screens; the others fit on little more than one


@cache
def parser(verb: str) -> Any:
    with plain_messages():
        return parser_of(VERBS[verb])


@cache
def shown(*argv: str) -> str:
    out = io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
        main(argv)
    return out.getvalue()


@pytest.mark.parametrize("verb", VERBS)
def test_a_page_is_small(verb: str) -> None:
    lines = shown(verb, "--help").splitlines()
    assert len(lines) <= LINES.get(verb, 60)
    assert max(map(len, lines)) <= WIDTH
    assert lines[0].startswith(f"usage: univnet {verb} ")
    assert lines[1].startswith(f"example: univnet {verb} ")
    assert lines[2] == ""


def rows(page: str) -> dict[str, str]:
    """Return the text of each option of a page, by the option's first name."""
    found = re.findall(r"^  (\S+?),?(?: .*?)?  +(\S.*)$", page, re.MULTILINE)
    return {name.partition("[")[0]: text for name, text in found if name.startswith("-")}


@pytest.mark.parametrize("verb", WITH_PARSERS)
def test_a_line_has_the_options_default(verb: str) -> None:
    actions = parser(verb)._option_string_actions
    listed = rows(shown(verb, "--help"))
    assert len(listed) >= 8
    for name, text in listed.items():
        default = None if actions[name].nargs == 0 else actions[name].default
        bracket = re.search(r" \[([^\[]*)\]$", text)
        if bracket is None:
            assert default in (None, [], argparse.SUPPRESS) or "default" in text, name
        elif isinstance(default, bool):
            assert bracket[1] == str(default).lower()
        elif isinstance(default, int | float):
            assert float(bracket[1]) == default
        elif isinstance(default, list):
            assert list(map(float, bracket[1].split())) == default
        elif isinstance(default, str):
            assert bracket[1] == default
        else:
            assert default.class_path.endswith(f".{bracket[1]}"), name


@pytest.mark.parametrize("verb", WITH_PARSERS)
def test_a_line_is_the_beginning_of_the_options_own_text(verb: str) -> None:
    actions = parser(verb)._option_string_actions
    for name, text in rows(shown(verb, "--help")).items():
        own = " ".join((actions[name].help or "").replace("``", "").split())
        assert own.startswith(re.sub(r"( \{[^}]*\})?( \[[^\]]*\])?$", "", text)), name


@pytest.mark.parametrize("verb", [name for name in WITH_PARSERS if name not in FIRST_PAGES])
def test_a_verb_without_more_pages_lists_all_its_options(verb: str) -> None:
    page = shown(verb, "--help")
    assert shown(verb, "--help.all") == page
    assert isinstance(parser(verb), VerbParser)
    assert all(
        f"  {invocation(action)} " in page for action in parser(verb)._actions if action.help != argparse.SUPPRESS
    )


@pytest.mark.parametrize("verb", FIRST_PAGES)
def test_all_options_are_behind_help_all(verb: str) -> None:
    page = shown(verb, "--help.all")
    lines = page.splitlines()
    actions = parser(verb)._option_string_actions
    names = [name for name in actions if name.startswith("-") and not name.startswith("--data.mel")]
    assert "model) --> data.mel [applied on instantiate]" in page  # linked: it cannot be given
    assert len(names) > 150
    assert not [name for name in names if not re.search(rf"(^|\s){re.escape(name)}[\s,\[]", page)]
    assert len(lines) > 500
    assert lines[0] == f"usage: univnet {verb} --config FILE [--OPTION VALUE ...]"
    assert lines[1] == ""
    assert FIRST_PAGES[verb].about.startswith(lines[2])  # wrapped


@pytest.mark.parametrize(("verb", "options"), [("find-lr", LROptions), ("find-batch-size", BatchSizeOptions)])
def test_a_finders_own_options_are_on_its_first_page(verb: str, options: type) -> None:
    listed = {name for names in FIRST_PAGES[verb].groups.values() for name in names}
    assert {field.name for field in fields(options)} <= listed


def test_a_class_has_help_of_its_own() -> None:
    page = shown("fit", "--model.generator.help", "univnet.Generator")
    assert re.match(
        r"usage: \S+ \[--OPTION VALUE \.\.\.\]\n\nHelp for --model.generator.help=univnet.Generator\n", page
    )
    assert "--model.generator.leaky_slope" in page


@pytest.mark.parametrize("verb", WITH_PARSERS)
def test_an_example_can_be_given(verb: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    made = parser(verb)
    example = FIRST_PAGES[verb].example if verb in FIRST_PAGES else made.example.removeprefix(f"univnet {verb} ")
    made.parse_args(shlex.split(example))


def test_words_are_of_options_and_their_defaults_are_lightnings() -> None:
    fit = parser("fit")._option_string_actions
    assert not [name for name in WORDS if f"--{name}" not in fit]
    trainer = Trainer(logger=False, enable_checkpointing=False, accelerator="cpu", barebones=False)
    real = {
        "trainer.precision": trainer.precision,
        "trainer.val_check_interval": trainer.val_check_interval,
        "trainer.limit_val_batches": trainer.limit_val_batches,
        "trainer.log_every_n_steps": trainer.log_every_n_steps,  # type: ignore[attr-defined]
    }
    told_defaults = {name: found[1] for name, text in WORDS.items() if (found := re.search(r"\(default: (.*)\)", text))}
    assert told_defaults == {name: str(value) for name, value in real.items()}


def test_a_line_ends_with_the_first_sentence() -> None:
    made = argparse.ArgumentParser()
    option = made.add_argument("--x", type=float, default=1e-7, help="of ``this``. Not that")
    assert told(option) == "of this [1e-07]"
    option = made.add_argument("--y", choices=("a", "b"), help="which; or none")
    assert told(option) == "which {a,b}"
