"""The parser of a verb that is no Lightning command: its page of help, and its mistakes in one line."""

import argparse
from collections.abc import Callable
from itertools import takewhile
from typing import Any, NoReturn

from univnet.cli.help.handing_over import HAND_OVER, ParserHandedOver
from univnet.cli.help.nearest import with_nearest
from univnet.cli.help.page import page, usage
from univnet.cli.messages import UsageError


class VerbParser(argparse.ArgumentParser):
    """Parses the arguments of a verb that is no Lightning command.

    Args:
        verb: the verb's name.
        about: what it does, in lines of at most 100 columns.
        example: arguments to begin with.
        ending: what else there is to know.

    Raises:
        UsageError: the arguments do not fit; the message says where to read about them.
    """

    def __init__(self, verb: str, about: str, example: str, ending: str = "") -> None:
        super().__init__(prog=f"univnet {verb}", description=about, epilog=ending)
        self.add_argument("--help.all", action="help", help=argparse.SUPPRESS)  # as the training verbs have it
        self.example = f"{self.prog} {example}"

    def group(self, title: str) -> Callable[..., Any]:
        """Begin a group of the page, and return what adds an argument to it."""
        return self.add_argument_group(title).add_argument

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> tuple[Any, list[str]]:
        """Parse ``args``.

        Raises:
            ParserHandedOver: the parser itself is asked for.
            UsageError: there are options that nobody knows; argparse would name what is missing first.
        """
        if args and args[-1] == HAND_OVER:
            raise ParserHandedOver(self)
        names = [word.partition("=")[0] for word in takewhile(lambda word: word != "--", args or [])]
        known = tuple(self._option_string_actions)
        if unknown := [name for name in names if name.startswith("--") and not any(k.startswith(name) for k in known)]:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return super().parse_known_args(args, namespace)

    def format_help(self) -> str:
        """Return the page, on which argparse's own groups, without titles of ours, come last."""
        _, options, *ours = self._action_groups
        groups = {str(group.title): group._group_actions for group in ours}
        groups["Other"] = options._group_actions
        return page(usage(self.prog, self._actions), self.example, self.description or "", groups, self.epilog or "")

    def error(self, message: str) -> NoReturn:
        """Raise the mistake, where argparse prints a page of usage and exits."""
        raise UsageError(f"{with_nearest(message, self._option_string_actions)}; see `{self.prog} --help`")
