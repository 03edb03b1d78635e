"""Which options a user has given by hand: on the command line, or in a second ``--config`` and those after it.

The first ``--config`` is the run's own: it is there at every resume, so what it says is not a wish for a change.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from jsonargparse import get_loader

from univnet.cli.configs import layers

_IN_BETWEEN = (".init_args", ".class_path", ".dict_kwargs")


def given_options(argv: Sequence[str]) -> set[str]:
    """Return the dotted names of the options in ``argv``, without ``init_args`` and ``class_path`` in between."""
    found, configs = set[str](), 0
    for name, value in _options(argv):
        if name == "config":
            configs += 1
            if configs > 1:
                found |= _names_in_config(value)
        else:
            found |= set(_names(name, _read(value)))
    return found


def is_given(option: str, given: set[str]) -> bool:
    """Whether ``option``, or a part of it, or what it is a part of, is among the options ``given``."""
    return any(f"{one}.".startswith(f"{option}.") or f"{option}.".startswith(f"{one}.") for one in given)


def _options(argv: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = [*argv]
    for index, word in enumerate(words):
        if word.startswith("--") or word == "-c":
            name, equals, value = word.lstrip("-").partition("=")
            following = words[index + 1] if index + 1 < len(words) else ""
            yield "config" if name == "c" else name.rstrip("+"), value if equals else following


def _names_in_config(value: str) -> set[str]:
    if not Path(value).expanduser().is_file():
        return set(_names("", _read(value)))
    return {name for _, settings in layers(value) for name in _names("", settings)}


def _names(name: str, value: Any) -> Iterator[str]:
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from _names(f"{name}.{key}" if name else str(key), inner)
    elif name:
        for part in _IN_BETWEEN:
            name = name.replace(f"{part}.", ".").removesuffix(part)
        yield name


def _read(value: str) -> Any:
    try:
        return get_loader("yaml")(value)
    except Exception:  # no YAML: jsonargparse has said so before, or takes it for text
        return value
