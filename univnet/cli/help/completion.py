"""Completion with Tab: a script for the shell, which shtab makes of the verbs' parsers; Tab itself loads nothing."""

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from univnet.cli.help.handing_over import HAND_OVER, ParserHandedOver
from univnet.cli.help.page import told
from univnet.cli.messages import UsageError

SHELLS = ("bash", "zsh")


def completion_script(shell: str, verbs: Mapping[str, Any]) -> str:
    """Return what a shell reads to complete verbs, their options, and what can be chosen.

    Args:
        shell: one of ``SHELLS``.
        verbs: the verbs by name, each with a ``summary`` and a function ``run``.

    Raises:
        UsageError: shtab is not installed, or it is another shell.
    """
    if shell not in SHELLS:
        raise UsageError(f"--print-completion is for {' or '.join(SHELLS)}, got {shell!r}")
    try:
        import shtab
        from jsonargparse import ActionConfigFile
    except ImportError as error:
        raise UsageError("--print-completion needs shtab: pip install 'univnet[completion]'") from error
    root = argparse.ArgumentParser(prog="univnet")
    subparsers = root.add_subparsers()
    for name, verb in verbs.items():
        subparsers.add_parser(name, help=verb.summary)
        parser = parser_of(verbs["fit" if name == "demo" else name])  # the demo takes what fit takes, but for these
        absent = ("--ckpt_path", "--rollbacks") if name == "demo" else ()
        for action in [*parser._actions]:
            if action.help != argparse.SUPPRESS:
                action.help = told(action).replace("%", "%%")  # zsh shows it
            # A name without dashes is that of a link between two options.
            if any(not each.startswith("-") or each in absent for each in action.option_strings):
                parser._actions.remove(action)
            elif isinstance(action.metavar, str) and action.metavar.startswith("{"):  # jsonargparse's, of a Literal
                action.choices = action.metavar.strip("{}").split(",")
            elif action.type is Path or isinstance(action, ActionConfigFile):
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        parser.formatter_class = argparse.HelpFormatter  # jsonargparse's adds types
        subparsers.choices[name] = parser
    return str(shtab.complete(root, shell))


def parser_of(verb: Any) -> argparse.ArgumentParser:
    """Return the parser that a verb makes when it runs.

    Args:
        verb: of the table ``VERBS``.
    """
    try:
        verb.run([HAND_OVER])
    except ParserHandedOver as handed:
        return handed.parser
    raise AssertionError("a verb's parser is a VerbParser or a TrainingParser")
