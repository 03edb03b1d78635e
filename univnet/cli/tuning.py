"""What the verbs that look for something before training have in common: their options, and the config they write."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch.cli import LightningArgumentParser
from lightning.pytorch.utilities import rank_zero_only

from univnet.cli.help.training_parser import TrainingParser
from univnet.cli.messages import UsageError
from univnet.cli.training import TrainingCLI
from univnet.common.files import write_text
from univnet.common.folders import cannot_write_to


class TuningCLI(TrainingCLI):
    """Everything ``fit`` takes, and the fields of ``options`` as options of ``verb``; nothing is run.

    Args:
        verb: the verb's name.
        options: a dataclass whose docstring, with those of the dataclasses that it extends, describes its fields;
            ``write`` is one. On the command line dashes in their names will do.
        argv: what follows the verb.

    Attributes:
        options: the parsed options.
    """

    def __init__(self, verb: str, options: type, argv: Sequence[str]) -> None:
        self._verb, self._options = verb, options
        super().__init__(args=[self._underscored(argument) for argument in argv], run=False)
        self.options = options(**{field.name: self.config_init[field.name] for field in fields(options)})
        self.datamodule.setup()

    def _underscored(self, argument: str) -> str:
        name, equals, value = argument.partition("=")
        own = {f"--{field.name.replace('_', '-')}": f"--{field.name}" for field in fields(self._options)}
        return own.get(name, name) + equals + value

    def init_parser(self, **kwargs: Any) -> TrainingParser:
        """Name the verb in usage and errors."""
        return super().init_parser(**{**kwargs, "prog": f"univnet {self._verb}"})

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Let the verb's options come first."""
        parser.add_class_arguments(self._options, instantiate=False)
        super().add_core_arguments_to_parser(parser)

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work before anything is computed."""
        super().before_instantiate_classes()
        if self.config.write:
            _refuse_existing(self.config.write)
            if mistake := cannot_write_to(Path(self.config.write).parent, "--write: the folder"):
                raise UsageError(mistake)

    @property
    def folder(self) -> Path:
        """Where the verb's findings go: the run's folder, or without a logger the trainer's ``default_root_dir``."""
        return Path(self.trainer.log_dir or self.trainer.default_root_dir)

    @rank_zero_only
    def write_config(self, path: str | Path, changes: Mapping[str, Any]) -> None:
        """Write the configuration at hand, but for what is as by default, for ``fit``.

        Args:
            path: a YAML file, which is not there yet.
            changes: new values by dotted keys, such as ``{"data.batch_size": 12}``.

        Raises:
            UsageError: it is there by now.
        """
        options = {field.name for field in fields(self._options)}
        config = (
            yaml.safe_load(self.parser.dump(self.config, skip_default=True, skip_none=False, skip_validation=True))
            or {}
        )
        config = {key: value for key, value in config.items() if key not in options}
        for key, value in changes.items():
            *parents, last = key.split(".")
            place = config
            for parent in parents:
                place = place.setdefault(parent, {})
            place[last] = value
        _refuse_existing(path)
        write_text(path, yaml.safe_dump(config, sort_keys=False))


def arguments_of(options: Any, search: type) -> dict[str, Any]:
    """Return those of ``options`` that are fields of the dataclass ``search``, as arguments of a ``Tuner``'s method."""
    return {field.name: getattr(options, field.name) for field in fields(search)}


def _refuse_existing(target: str | Path) -> None:
    if Path(target).exists():
        raise UsageError(f"--write {target}: there is such a file; give another name, or move it away")
