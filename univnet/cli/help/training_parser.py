"""The parser of the training verbs: a first page of help, all options behind ``--help.all``, mistakes in one line."""

import argparse
import re
from typing import Any, NoReturn

from jsonargparse import ArgumentParser
from lightning.pytorch.cli import LightningArgumentParser

from univnet.cli.help.first_pages import ENDING, FIRST_PAGES, WORDS
from univnet.cli.help.handing_over import HAND_OVER, ParserHandedOver
from univnet.cli.help.nearest import with_nearest
from univnet.cli.help.page import page
from univnet.cli.messages import exit_with_error, parsing_mistake


class TrainingParser(LightningArgumentParser):
    """Shows a page of the options that are needed first, where jsonargparse shows all, and a page of usage."""

    def add_help_all(self) -> None:
        """Add the option that shows what ``--help`` leaves out."""
        self.add_argument("--help.all", action=_AllHelp, help="show all options, with all that is said of them")

    def parse_args(self, args: Any = None, *others: Any, **named: Any) -> Any:
        """Parse ``args``.

        Raises:
            ParserHandedOver: the verb's parser itself is asked for.
        """
        if isinstance(args, list) and args[-1:] == [HAND_OVER] and self.verb in FIRST_PAGES:
            self._say_plainly()
            raise ParserHandedOver(self)
        return super().parse_args(args, *others, **named)

    def validate(self, namespace: Any, skip_unset: bool = True, **named: Any) -> None:
        """Check the type of every option; jsonargparse lets a null in a file pass as if the option were not there.

        Raises:
            TypeError: naming the first option that does not fit, or the part of a configuration that is null.
        """
        try:
            for part in self.groups or ():
                if namespace.get(part, "") is None:
                    raise TypeError(f"{part} is null: leave the key out for its defaults, or list its options below it")
            super().validate(namespace, skip_unset=False, **named)
        except (KeyError, TypeError) as error:
            if not hasattr(error, "subcommand_parser"):
                error.subcommand_parser = self._of_verb(namespace)  # type: ignore[union-attr]  # its help tells more
            raise

    def _of_verb(self, namespace: Any) -> Any:
        verbs = self._subcommands_action
        return self if verbs is None else verbs._name_parser_map.get(namespace.get(verbs.dest), self)

    @property
    def command(self) -> str:
        """The command line so far, such as ``univnet fit``."""
        return self.prog.replace(" [options]", "")

    @property
    def verb(self) -> str:
        """The verb that it is for."""
        return self.command.removeprefix("univnet ")

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Return the verb's first page; of a class and of other parsers, all that there is."""
        if self.verb not in FIRST_PAGES:
            return self.format_all(f"{self.command} [--OPTION VALUE ...]")
        first = FIRST_PAGES[self.verb]
        self._say_plainly()
        options = self._option_string_actions
        groups = {title: [options[f"--{name}"] for name in names] for title, names in first.groups.items()}
        example, ending = f"{self.command} {first.example}", ENDING.format(verb=self.verb)
        return page(self._usage(), example, first.about, groups, ending)

    def format_all(self, usage: str | None = None) -> str:
        """Return jsonargparse's help, with one line of usage."""
        self._say_plainly()
        if usage is None:
            self.description = FIRST_PAGES[self.verb].about
        self.usage = usage or self._usage()
        return str(ArgumentParser.format_help(self))

    def _usage(self) -> str:
        return f"{self.command} --config FILE [--OPTION VALUE ...]"

    def _say_plainly(self) -> None:
        for name, words in WORDS.items():
            action = self._option_string_actions.get(f"--{name}")
            if action is not None and not (action.help or "").startswith(words):
                action.help = f"{words}. {action.help}"

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Name the mistake, what may have been meant, and where to read up; exit."""
        if not self.exit_on_error:
            super().error(message, ex)
        parser = getattr(ex, "subcommand_parser", self)
        options = parser._option_string_actions
        told = with_nearest(parsing_mistake(message), options)
        of_class = re.match(r"([\w.]+): Option '\w+' is not accepted", told)
        where = f"--{of_class[1]}.help CLASS" if of_class and f"--{of_class[1]}.help" in options else "--help"
        exit_with_error(f"{told}; see `{parser.prog.replace(' [options]', '')} {where}`")


class _AllHelp(argparse._HelpAction):
    def __call__(self, parser: Any, *_: Any) -> None:
        print(parser.format_all(), end="")
        parser.exit()
