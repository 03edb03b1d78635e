"""How a mistake of the user's is told: in one line, without a traceback."""

import argparse
import os
import re
import sys
from typing import NoReturn

EXIT_STATUS = 2


class UsageError(Exception):
    """A mistake in what the user asked for; its message names the mistake and the mend."""


class VerbParser(argparse.ArgumentParser):
    """Parses the arguments of a verb that is no Lightning command; its ``prog`` is ``univnet VERB``.

    Raises:
        UsageError: the arguments do not fit; the message says where to read about them.
    """

    def error(self, message: str) -> NoReturn:
        """Raise the mistake, where argparse prints a page of usage and exits."""
        raise UsageError(f"{message}; see `{self.prog} --help`")


def complain(error: BaseException | str) -> NoReturn:
    """Print one line on stderr and exit. A rank of a multi-process run other than the first says which it is."""
    rank = os.environ.get("LOCAL_RANK", "0")  # set by Lightning for the processes that it starts
    who = "univnet: error" if rank == "0" else f"univnet: rank {rank}: error"
    print(f"{who}: {sentence(str(error))}", file=sys.stderr)
    sys.exit(EXIT_STATUS)


def sentence(message: str) -> str:
    """Return ``message`` on one line.

    Of one that quotes a loader process's traceback it is what that process said, and of one about a package that is not
    installed, how to install it.
    """
    if missing := re.search(r"Requirement '([^']+)' not met", message):
        return f"this needs {missing[1]}: pip install '{missing[1]}'"
    if "Original Traceback" in message:
        message = re.sub(r"^[\w.]+(Error|Exception): ", "", message.strip().splitlines()[-1])
    return " ".join(message.split())


def parsing_mistake(message: str) -> str:
    """Return what jsonargparse's ``message`` says, for a reader who does not know its types."""
    key, nested = (
        r'Parser key "([^"]*)":',
        r"Problem with given class_path '[^']*':\s*(.+?)\s*(?:\n\s*- |\n *Given value|$)",
    )
    if "Union subtypes" in message:
        where = re.search(key, message)
        found = re.findall(nested, message, re.DOTALL)
        types, value = (re.search(p, message) for p in (r"Subtypes: [\[(](.*)[\])]", r"Given value: (.*)"))
        what = found[-1] if found else f"expected one of {types[1] if types else '?'}, got {value[1] if value else '?'}"
        message = f"{where[0] if where else ''} {what}"
    message = re.sub(key, r"\1:", message)
    message = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", message).replace("NoneType", "null")
    return sentence(re.sub(r"Expected an? (\S+?)\.? Got value: ", r"expected \1, got ", message)).rstrip(".")
