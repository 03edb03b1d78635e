"""What a user may have meant by a name that there is not."""

import re
from collections.abc import Iterable
from difflib import get_close_matches

_UNKNOWN_ARGUMENTS = "unrecognized arguments:"
_UNKNOWN_KEY = re.compile(r"does not accept option '([\w.]+)'")
_AMBIGUOUS = re.compile(r"could match (.*)")
_FEW = 5  # of the options that an abbreviation could stand for


def nearest(name: str, names: Iterable[str]) -> str:
    """Return `` (did you mean …?)`` with the one of ``names`` that is most like ``name``, or nothing."""
    close = get_close_matches(name, list(names), n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def with_nearest(message: str, options: Iterable[str]) -> str:
    """Return a parser's ``message`` with the nearest of ``options`` behind each name that it does not know.

    Args:
        message: of argparse or jsonargparse.
        options: such as ``--sample-rate``.
    """
    options = list(options)
    if (found := _UNKNOWN_KEY.search(message)) is not None:  # of a configuration file
        guess = nearest(f"--{found[1]}", options).replace("--", "")
        return message.replace(found[0], found[0] + guess)
    if (found := _AMBIGUOUS.search(message)) is not None:
        few = [each for each in found[1].split(", ") if not each.endswith(".help")][:_FEW]
        return message.replace(found[1], ", ".join([*few, "…"]) if len(found[1]) > len(", ".join(few)) else found[1])
    before, unknown, rest = message.partition(_UNKNOWN_ARGUMENTS)
    if not unknown:
        return message
    guesses = (nearest(word.partition("=")[0], options) for word in rest.split() if word.startswith("--"))
    return f"{before}{unknown}{rest.rstrip('.')}{''.join(guesses)}"
