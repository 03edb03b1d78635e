"""Configuration files that say only what they change: ``base: FILE`` in one names the file that it goes on from.

``--config B`` where B begins with ``base: A`` is ``--config A --config B``. The name of A is relative to the folder of
B, and A may have a base itself. The configuration that a run saves, or that ``--print_config`` prints, is the merged
one.
"""

import os
from enum import Enum
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ActionConfigFile, get_loader
from jsonargparse.typing import Path_fr

from univnet.cli.messages import UsageError

BASE = "base"
_LARGEST = 1 << 20  # bytes of a file
_DEEPEST, _MOST = 50, 100_000  # levels of a configuration, and values in it
# Some of Lightning's defaults are members of an enumeration (Timer's interval): they are written as their values.
yaml.SafeDumper.add_multi_representer(Enum, lambda dumper, member: dumper.represent_data(member.value))


class ConfigFile(ActionConfigFile):
    """The action of ``--config``: applies the bases of a file before the file itself."""

    def __call__(self, parser: Any, cfg: Any, values: Any, option_string: str | None = None) -> None:
        """Apply ``values``, a file or YAML text, to ``cfg``."""
        if not os.path.isfile(os.path.expanduser(values)):  # text, or a mistake that jsonargparse names
            super().__call__(parser, cfg, values, option_string)
            return
        for file, settings in layers(values):
            with Path_fr(str(file)).relative_path_context():  # files that it names stand beside it
                super().__call__(parser, cfg, yaml.safe_dump(settings, sort_keys=False), option_string)


def layers(file: str | Path) -> list[tuple[Path, dict[str, Any]]]:
    """Return what ``file`` and the files it goes on from say, without their ``base``; the file itself comes last.

    Raises:
        UsageError: a file is missing or cannot be read, is no YAML mapping, or goes on from itself.
    """
    path: Path | None = Path(file).expanduser()
    found: list[tuple[Path, dict[str, Any]]] = []
    while path is not None:
        settings = _read(path)
        base = settings.pop(BASE, None)
        found.append((path, settings))
        path = None if base is None else _base_of(found, base)
    return found[::-1]


def _base_of(found: list[tuple[Path, dict[str, Any]]], base: Any) -> Path:
    """Return the file that the last one ``found`` names as its ``base``."""
    files = [file for file, _ in found]
    if not isinstance(base, str):
        raise UsageError(f"{files[-1]}: {BASE} must be the name of one YAML file, got {base!r}")
    path = files[-1].parent / Path(base).expanduser()
    if not path.is_file():
        raise UsageError(f"{files[-1]}: there is no file {path}, which it names as its {BASE}")
    if path.resolve() in [file.resolve() for file in files]:
        chain = " → ".join(file.name for file in [*files, path])
        raise UsageError(f"{files[-1]}: {BASE} leads back to {path}, which is being read ({chain}): name another file")
    return path


def _read(path: Path) -> dict[str, Any]:
    if path.stat().st_size > _LARGEST:
        raise UsageError(f"{path} is larger than {_LARGEST >> 20} MiB: a configuration is a few kB of YAML")
    try:
        settings = get_loader("yaml")(path.read_text(encoding="utf-8"))  # a safe loader, which reads 1e-4 as a number
    except (yaml.YAMLError, ValueError) as error:  # UnicodeDecodeError is a ValueError, as are impossible dates
        raise UsageError(f"{path} is not readable YAML: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{path} is nested too deeply: a configuration has a few levels") from error
    _check_size(path, settings)
    if not isinstance(settings, dict):
        raise UsageError(f"{path} holds no settings: expected keys such as trainer, model and data")
    return settings


def _check_size(path: Path, settings: Any) -> None:
    """Refuse what aliases make endless, or much larger than the file."""
    level, count = [settings], 0
    for _ in range(_DEEPEST):
        children: list[Any] = []
        for node in level:
            children += node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
            if count + len(children) > _MOST:
                raise UsageError(f"{path} stands for more than {_MOST} values by its aliases (*): write them out")
        level, count = children, count + len(children)
        if not level:
            return
    raise UsageError(f"{path} is nested more than {_DEEPEST} levels deep, or its aliases (*) lead back to themselves")
