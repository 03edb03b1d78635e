"""One entry for every verb: ``univnet VERB`` (or ``scripts/VERB.py``)."""

import logging
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from univnet.callbacks import AudioThroughput, UpdateProgressBar, ValidationSamples
from univnet.data import AudioDataModule
from univnet.gan import NonFiniteError
from univnet.module import UnivNet

TRAINING_VERBS = ("fit", "validate")
LOGGER = {"class_path": "lightning.pytorch.loggers.TensorBoardLogger", "init_args": {"save_dir": "runs"}}
# What a user can mend; anything else is our mistake and keeps its traceback.
USER_ERRORS = (ValueError, OSError, MisconfigurationException, NonFiniteError)


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb. A mistake of the user's ends in one sentence and exit status 2; ``UNIVNET_TRACEBACK=1`` shows more."""
    argv = list(sys.argv[1:] if argv is None else argv)
    _quieten()
    try:
        if argv and argv[0] == "synthesize":
            from univnet.synthesize import run

            run(argv[1:])
        else:
            TrainingCLI(args=argv)
    except USER_ERRORS as error:
        if os.environ.get("UNIVNET_TRACEBACK"):
            raise
        sys.exit(_complain(error))


class ResumableSaveConfig(SaveConfigCallback):
    """Save a run's configuration beside its logs; a resumed run's beside the first one's, under a name of its own."""

    def setup(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Save it, unless this is a run in which nothing is trained."""
        if trainer.state.fn != "fit" or not trainer.loggers:
            return
        if self.config.get("ckpt_path"):
            self.config_filename, self.overwrite = "config-resumed.yaml", True
        super().setup(trainer, *args, **kwargs)


class TrainingCLI(LightningCLI):
    """LightningCLI for ``fit`` and ``validate``: every constructor argument in YAML and on the command line."""

    def __init__(self, args: ArgsType = None, run: bool = True) -> None:
        super().__init__(
            UnivNet,
            AudioDataModule,
            args=args,
            run=run,
            seed_everything_default=1234,
            save_config_callback=ResumableSaveConfig,
            trainer_defaults={"logger": LOGGER, "use_distributed_sampler": True},
            load_from_checkpoint_support=False,  # Vocoder.from_checkpoint and --ckpt_path read what they need
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's methods offered, with the arguments that are ours to give."""
        hidden = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
        return dict.fromkeys(TRAINING_VERBS, hidden)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Share the model's mel-spectrogram with the data, and add the callbacks of every run."""
        parser.link_arguments("model", "data.mel", compute_fn=lambda model: model.mel, apply_on="instantiate")
        for name, defaults in _checkpoints().items():
            parser.add_lightning_class_args(ModelCheckpoint, name)
            parser.set_defaults({f"{name}.{key}": value for key, value in defaults.items()})
        for name, callback in {
            "progress": UpdateProgressBar,
            "samples": ValidationSamples,
            "throughput": AudioThroughput,
        }.items():
            parser.add_lightning_class_args(callback, name)

    def _parse_ckpt_path(self) -> None:
        """Let the configuration win over the learning rates that Lightning would read from the checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Find the run that ``--ckpt_path last`` resumes, so that its logs and checkpoints go on in its own folder."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        _refuse_one_optimizer_options(config.trainer)
        if config.get("ckpt_path") == "last":
            last = _last_checkpoint(config.trainer.logger)
            config.ckpt_path = str(last)
            config.trainer.logger.init_args.version = last.parent.parent.name
        elif config.get("ckpt_path") and not Path(config.ckpt_path).is_file():
            raise FileNotFoundError(f"--ckpt_path: there is no checkpoint {config.ckpt_path}")

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}


def _checkpoints() -> dict[str, dict[str, Any]]:
    """Return the defaults of the three kinds of checkpoint: best, every so many updates, and last."""
    common = {"auto_insert_metric_name": False, "enable_version_counter": False, "save_last": True}
    return {
        "checkpoint_best": common | {"monitor": "val/stft", "filename": "best", "save_top_k": 1},
        "checkpoint_every": common | {"every_n_train_steps": 5000, "filename": "step_{step}", "save_top_k": -1},
        "checkpoint_epoch": common | {"every_n_epochs": 1, "save_on_train_epoch_end": True, "save_top_k": 0},
    }


def _refuse_one_optimizer_options(trainer: Any) -> None:
    wrong = []
    if trainer.accumulate_grad_batches != 1:
        wrong.append("trainer.accumulate_grad_batches (set model.generator_updates.accumulate)")
    if trainer.gradient_clip_val is not None:
        wrong.append("trainer.gradient_clip_val (set model.generator_updates.clip_norm or .clip_value)")
    if wrong:
        raise ValueError(
            f"{' and '.join(wrong)} cannot serve two optimizers; the same goes for model.discriminator_updates"
        )


def _last_checkpoint(logger: Any) -> Path:
    """Return the newest ``last.ckpt`` of the runs that ``logger`` would write beside."""
    where = logger.get("init_args", {}) if logger and not isinstance(logger, (bool, list)) else {}
    if not where.get("save_dir"):
        raise ValueError("--ckpt_path last needs one logger with a save_dir; else name the checkpoint file itself")
    folder = Path(where["save_dir"]) / (where.get("name") or "")
    found = sorted(folder.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise FileNotFoundError(f"--ckpt_path last: there is no last.ckpt under {folder}; leave it out to start afresh")
    return found[-1]


def _complain(error: BaseException) -> str:
    print(f"univnet: error: {error}", file=sys.stderr)
    return 2  # type: ignore[return-value]


def _quieten() -> None:
    """Drop messages of Lightning's that say nothing to a user of ours."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*args parameter is intended to run from within Python.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(lambda r: "litlogger" not in r.getMessage())
