"""A page of help: usage in one line, an example, then groups in order of need, with one line per option."""

import re
from argparse import SUPPRESS, Action
from collections.abc import Iterable, Mapping
from typing import Any

WIDTH = 100  # columns of a page at most, which the tests demand: nothing is cut off
IN_BRACKETS = "In brackets: the default; an option without one is off, or not set."


def page(usage: str, example: str, about: str, groups: Mapping[str, Iterable[Action]], ending: str = "") -> str:
    """Return the text of a page.

    Args:
        usage: the command with what it cannot do without.
        example: a command that can be given as it is.
        about: what the verb does.
        groups: options by the title of their group; what is needed first comes first.
        ending: what else there is to know.
    """
    parts = [f"usage: {usage}\nexample: {example}", f"{about}\n{IN_BRACKETS}"]
    for title, actions in groups.items():
        rows = {invocation(action): told(action) for action in actions if action.help != SUPPRESS}
        width = max(map(len, rows))
        parts.append("\n".join([f"{title}:", *(f"  {name:{width}}  {text}".rstrip() for name, text in rows.items())]))
    return "\n\n".join([*parts, *([ending] if ending else [])]) + "\n"


def usage(prog: str, actions: Iterable[Action]) -> str:
    """Return the command with the arguments that it cannot do without."""
    required = [invocation(action) for action in actions if action.required]
    return " ".join([prog, *required, "[--OPTION VALUE ...]"])


def invocation(action: Action) -> str:
    """Return what is typed for an option, such as ``-c, --config`` or ``--sample-rate HZ``."""
    names = [name for name in action.option_strings if not name.endswith("+")]  # jsonargparse's, for lists
    metavar = action.metavar if isinstance(action.metavar, str) and not action.metavar.startswith("{") else ""
    if not names:
        metavar = metavar or action.dest.upper()
    several = " ..." if action.nargs == "+" and metavar else ""
    return f"{', '.join(names)} {metavar}".strip().replace(" \b", "") + several  # \b: jsonargparse's, against the space


def told(action: Action) -> str:
    """Return the first sentence of an option's text, up to a semicolon; what can be chosen; its default in brackets."""
    text = re.split(r"\.(?:\s|$)|;\s", " ".join((action.help or "").replace("``", "").split()))[0]
    default = _default(action)
    chosen = action.metavar  # jsonargparse's, of a Literal
    if action.choices and chosen is None:
        chosen = f"{{{','.join(map(str, action.choices))}}}"
    if isinstance(chosen, str) and chosen.startswith("{") and "true" not in chosen:
        text += f" {chosen}"
    return text if default is None or "default" in text else f"{text} [{default}]"


def _default(action: Action) -> str | None:
    value = action.default
    if action.nargs == 0 or action.required or value is None or value is SUPPRESS or value == []:
        return None
    return _plain(value)


def _plain(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        return f"{value:g}"
    if "class_path" in (value if isinstance(value, Mapping) else getattr(value, "__dict__", ())):
        return str(value["class_path"]).rpartition(".")[2]
    return " ".join(map(_plain, value)) if isinstance(value, list | tuple) else str(value)
