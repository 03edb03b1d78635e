"""The ``fit`` and ``validate`` verbs: LightningCLI for a UnivNet."""

import shlex
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import lightning
from lightning.pytorch import Callback, LightningModule, Trainer, seed_everything
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint, ProgressBar
from lightning.pytorch.cli import ArgsType, LightningArgumentParser, LightningCLI, SaveConfigCallback
from lightning.pytorch.utilities import rank_zero_info

from univnet.callbacks import AudioThroughput, LastCheckpoint, UpdateProgressBar, ValidationSamples
from univnet.callbacks.last_checkpoint import last_file
from univnet.cli.configs import ConfigFile
from univnet.cli.help.training_parser import TrainingParser
from univnet.cli.messages import UsageError
from univnet.cli.runs.given import given_options
from univnet.cli.runs.options import give_way
from univnet.cli.runs.resuming import Resuming, carried, resumed_options
from univnet.cli.runs.rollback import Rollbacks, RolledBack, check_rollbacks
from univnet.common.folders import cannot_write_to
from univnet.data import AudioDataModule
from univnet.gan import NonFiniteError
from univnet.gan.endurance.last_run import continue_in, find_checkpoint, note_job
from univnet.gan.endurance.ranks import join_restarted
from univnet.module import UnivNet
from univnet.runtime import suit_training
from univnet.vocoder import read_checkpoint
from univnet.weights.sources import read_weights
from univnet.weights.start import mel_differences, start_from

LOGGER = {
    "class_path": "lightning.pytorch.loggers.TensorBoardLogger",
    "init_args": {"save_dir": "runs", "default_hp_metric": False},
}
CHECKPOINT_BEST = {
    "monitor": "val/stft",
    "filename": "best",
    "auto_insert_metric_name": False,
    "enable_version_counter": False,
    "save_on_train_epoch_end": False,
}
CHECKPOINT_EVERY = {
    "every_n_train_steps": 5000,
    "filename": "step_{step}",
    "auto_insert_metric_name": False,
    "enable_version_counter": False,
    "save_top_k": -1,
}


def run(argv: Sequence[str]) -> None:
    """Run the verb that ``argv`` begins with, ``fit`` or ``validate``.

    Raises:
        UsageError: what the user can mend, in a sentence.
    """
    rollbacks = Rollbacks()
    while True:
        try:
            TrainingCLI(args=[*argv, *rollbacks.options], rollbacks=rollbacks)
            return
        except RolledBack as back:
            rollbacks.note(back)


class RunConfig(SaveConfigCallback):
    """Keep a run's configuration beside its logs; a resumed run's beside the first one's, under a name of its own."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Save it, unless this is a run in which nothing is trained; say what is trained, and where its logs go."""
        if stage != "fit":
            return
        where = trainer.log_dir
        sizes = {name: sum(p.numel() for p in net.parameters()) for name, net in pl_module.named_children()}
        parts = ", ".join(f"{name} of {size / 1e6:.2f} M parameters" for name, size in sizes.items() if size)
        kept = trainer.loggers or trainer.checkpoint_callbacks
        folder = f"logs and checkpoints in {where or trainer.default_root_dir}" if kept else "nothing is written"
        rank_zero_info(f"univnet: {parts}; {folder}")
        if where is None or not trainer.loggers:
            return
        beside, number = Path(where), 1
        while (beside / self.config_filename).exists() and trainer.is_global_zero:
            self.config_filename = "config-resumed.yaml" if number == 1 else f"config-resumed-{number}.yaml"
            number += 1
        note_job(beside)
        self.overwrite = True  # of nothing: the name is free
        super().setup(trainer, pl_module, stage)


class TrainingCLI(LightningCLI):
    """LightningCLI for ``fit`` and ``validate``: every constructor argument in YAML and on the command line.

    Args:
        args: what follows ``univnet``.
        run: run the verb, instead of only building its parts.
        rollbacks: how often this run has gone back to a checkpoint of its own.
    """

    def __init__(self, args: ArgsType = None, run: bool = True, rollbacks: Rollbacks | None = None) -> None:
        self._rollbacks = rollbacks or Rollbacks()
        self._given = given_options(args) if isinstance(args, list) else set()
        self._resuming: Resuming | None = None
        self._checkpoint: dict[str, Any] | None = None
        super().__init__(
            UnivNet,
            AudioDataModule,
            args=args,
            run=run,
            seed_everything_default=1234,
            save_config_callback=RunConfig,
            parser_class=TrainingParser,
            parser_kwargs={"prog": "univnet" if run else "univnet demo"},
            trainer_defaults={"logger": LOGGER, "enable_model_summary": False},
            auto_configure_optimizers=False,  # the module makes its two
            load_from_checkpoint_support=False,  # Vocoder.from_checkpoint and --ckpt_path read what they need
        )

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the trainer's methods offered, with the arguments that are ours to give."""
        hidden = {"model", "train_dataloaders", "val_dataloaders", "dataloaders", "datamodule", "weights_only"}
        return dict.fromkeys(("fit", "validate"), hidden)

    def init_parser(self, **kwargs: Any) -> TrainingParser:
        """Make the parser as Lightning does, but for configuration files that may have a base."""
        parser = TrainingParser(**{"dump_header": [f"lightning.pytorch=={lightning.__version__}"], **kwargs})
        parser.add_argument(
            "-c",
            "--config",
            action=ConfigFile,
            help="Path to a YAML or JSON file; `base: FILE` in it names one to go on from.",
        )
        parser.add_help_all()
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Share the model's mel-spectrogram with the data, and add the callbacks of every run."""
        parser.add_argument(
            "--init_from",
            type=str | None,
            default=None,
            help="weights to start from: a checkpoint, a folder, or a name on the hub; as far as they fit. A "
            "checkpoint is ours or the reference's or a safetensors file, a folder save_pretrained's or transformers'",
        )
        parser.add_argument(
            "--init_weights",
            type=Literal["auto", "averaged", "raw"],
            default="auto",
            help="which generator of a checkpoint; auto is the averaged one if there is one",
        )
        parser.add_argument(
            "--rollbacks",
            type=int,
            default=0,
            help="returns to the last good checkpoint, allowed after NaN or infinity; then the run ends. "
            "The learning rate of the player whose weights or gradients are not finite is halved",
        )
        parser.add_argument(
            "--matmul_precision",
            type=Literal["highest", "high", "medium"],
            default="high",
            help="precision of float32 products on a GPU; as for torch.set_float32_matmul_precision, high is TF32. "
            "Torch has TF32 for convolutions, too. Mels and validation are always in float32; so is all on a CPU",
        )
        parser.link_arguments("model", "data.mel", compute_fn=lambda model: model.mel, apply_on="instantiate")
        for name, callback, defaults in (
            ("progress", UpdateProgressBar, {}),
            ("samples", ValidationSamples, {}),
            ("throughput", AudioThroughput, {}),
            ("checkpoint_best", ModelCheckpoint, CHECKPOINT_BEST),
            ("checkpoint_every", ModelCheckpoint, CHECKPOINT_EVERY),
            ("checkpoint_last", LastCheckpoint, {}),
        ):
            parser.add_lightning_class_args(callback, name)
            parser.set_defaults({f"{name}.{key}": value for key, value in defaults.items()})

    def _parse_ckpt_path(self) -> None:
        """Let the configuration win over the learning rates that Lightning would read from the checkpoint."""

    def before_instantiate_classes(self) -> None:
        """Refuse what cannot work, and find the run that is to go on, in its folder."""
        config = self.config[self.subcommand] if self.subcommand else self.config
        give_way(config, self._given)
        _refuse_sources(config.data, self._given)
        if self.subcommand == "validate" and not config.get("ckpt_path"):
            raise UsageError("validate needs a checkpoint to measure: --ckpt_path FILE, or --ckpt_path last")
        asked = config.get("ckpt_path")
        if asked not in (None, "auto") and config.get("init_from"):
            raise UsageError("--init_from starts a new run and --ckpt_path goes on with one: give one of the two")
        loggers = _with_folders(config.trainer.logger)
        where = loggers[0].init_args if loggers else None
        _refuse_folders(loggers, config.trainer)
        found = find_checkpoint(asked, where and Path(where.save_dir) / (where.get("name") or ""))
        if asked is not None or found is not None:  # else the option may not be there, as for the demo
            config.ckpt_path = None if found is None else str(found)
        if found is not None:
            config.init_from = None  # what a run that is queued again, or one with auto, has started from
            self._checkpoint = read_checkpoint(found)  # a damaged one is refused before anything is built or written
            if str(found) != asked or self._rollbacks.made:
                continue_in(found.parent.parent, self._checkpoint)
                for each in loggers:
                    each.init_args.version = found.parent.parent.name
            if self.subcommand == "fit":
                self._resume(self._checkpoint, config)
        elif self.subcommand == "validate":
            raise UsageError(f"validate needs a checkpoint to measure, and --ckpt_path {asked} stands for none yet")
        elif self.subcommand == "fit":
            self._resuming = Resuming(carried(self._parser("fit"), config))
        # Read first: a damaged file is refused before anything is built or written.
        self._source = read_weights(config.init_from, config.init_weights) if config.get("init_from") else None

    def _resume(self, checkpoint: Mapping[str, Any], config: Any) -> None:
        """Refuse what cannot go on from ``checkpoint``, and let ``config`` say what is true."""
        options = carried(self._parser("fit"), config)
        stay, self._resuming = resumed_options(checkpoint, options, self._given)
        for name, value in stay.items():
            config[name] = value
        made, wanted = checkpoint["global_step"], config.trainer.max_steps
        if 0 <= wanted <= made:
            rank_zero_info(
                f"univnet: the checkpoint is of update {made} and trainer.max_steps is {wanted}: there is nothing left "
                "to train; give a larger max_steps to go on"
            )
        if "seed_everything" in stay:
            seed_everything(stay["seed_everything"], workers=True)

    def instantiate_classes(self) -> None:
        """Build the parts; then give the model the weights that ``--init_from`` names."""
        super().instantiate_classes()
        if self._source is None:
            return
        told = start_from(self.model, self._source)
        rank_zero_info(f"univnet: starts from {self._source.where}, {self._source.kind}")
        for each in told:
            rank_zero_info(str(each))
        if differ := mel_differences(self._source, self.model.mel):
            warnings.warn(f"the weights were trained on another mel-spectrogram: {', '.join(differ)}", stacklevel=2)

    def after_instantiate_classes(self) -> None:
        """Refuse what cannot train two players or is of another model, before data are read."""
        checkpoint, self._checkpoint = self._checkpoint, None
        if checkpoint is not None:
            self.model.on_load_checkpoint(checkpoint)  # without a trainer, only a check
        if self.subcommand != "validate":
            self.model.refuse_unfit(self.trainer, "model.")
        if self.subcommand == "fit":
            model = self.config.fit.model
            schedules = {player: model[f"{player}_schedule"] for player in self.model.updates}
            check_rollbacks(self.config.fit.rollbacks, self.trainer, schedules)

    def before_fit(self) -> None:
        """Find mistakes in the data before a folder is made for the run."""
        self.datamodule.setup()
        if self.trainer.world_size > 1:
            join_restarted(self.trainer.strategy.root_device)

    def fit(self, model: UnivNet, **options: Any) -> None:
        """Train.

        Raises:
            RolledBack: the run is to go on from a checkpoint of its own.
        """
        try:
            self.trainer.fit(model, **options)
        except NonFiniteError as error:
            rates = {player: model.hparams[f"{player}_lr"] for player in model.updates}
            raise self._rollbacks.back_from(error, self.trainer, rates, self.config.fit.rollbacks) from None

    def after_fit(self) -> None:
        """Say where the last checkpoint is, and how it is heard."""
        if not self.trainer.checkpoint_callbacks or not (last := last_file(self.trainer)).exists():
            return
        best = last.with_name("best.ckpt")
        heard = shlex.quote(str(best if best.exists() else last))
        rank_zero_info(f"univnet: the last checkpoint is {last}; to hear what was trained:")
        rank_zero_info(f"univnet synthesize --checkpoint {heard} --output out FILES")

    def before_validate(self) -> None:
        """Find mistakes in the data, and say where there is nothing to measure."""
        self.datamodule.setup()
        if not self.trainer.limit_val_batches:
            raise UsageError("validate has nothing to measure: trainer.limit_val_batches is 0")
        if not self.datamodule.validation_dataset:
            raise UsageError(
                "validate has nothing to measure: no recording is kept apart for validation; set data.validation to a "
                "number of files, or name some in a manifest"
            )

    def _instantiate_trainer(self, config: dict[str, Any], callbacks: list[Callback]) -> Trainer:
        """Leave out the callbacks of every run that the trainer's switches are against, or that have a substitute."""
        switches = {"enable_progress_bar": ProgressBar, "enable_checkpointing": Checkpoint}
        off = tuple(kind for switch, kind in switches.items() if config.get(switch) is False)
        theirs = config.get("callbacks") or []
        if any(isinstance(each, ProgressBar) for each in (theirs if isinstance(theirs, list) else [theirs])):
            off += (ProgressBar,)
        callbacks = [each for each in callbacks if not isinstance(each, off)]
        if self._resuming is not None:
            callbacks.append(self._resuming)
        trainer = super()._instantiate_trainer(config, callbacks)
        options = self.config[self.subcommand] if self.subcommand else self.config
        suit_training(trainer.strategy.root_device, options.matmul_precision)
        return trainer

    def _prepare_subcommand_kwargs(self, subcommand: str) -> dict[str, Any]:
        return {**super()._prepare_subcommand_kwargs(subcommand), "weights_only": True}


def _with_folders(logger: Any) -> list[Any]:
    """Return the configurations of those of the trainer's loggers that write to a folder."""
    loggers = logger if isinstance(logger, list) else [logger]
    return [each for each in loggers if hasattr(each, "get") and (each.get("init_args") or {}).get("save_dir")]


def _refuse_folders(loggers: Sequence[Any], trainer: Any) -> None:
    """Refuse folders of a run's logs and checkpoints that cannot be written to."""
    places = {
        "trainer.logger.init_args.save_dir": [
            Path(each.init_args.save_dir) / (each.init_args.get("name") or "") for each in loggers
        ],
        "trainer.default_root_dir": [Path(trainer.default_root_dir)] if trainer.default_root_dir else [],
    }
    for option, folders in places.items():
        for folder in folders:
            # Addresses such as s3://… are Lightning's; a Path of one has a single slash.
            if ":/" not in str(folder) and (why := cannot_write_to(folder, option)):
                raise UsageError(why)


def _refuse_sources(data: Any, given: set[str]) -> None:
    """Refuse no recordings at all, and those of two options."""
    if not data.root and not data.manifest:
        raise UsageError("there are no recordings to read: give --data.root FOLDER or --data.manifest FILE")
    if data.root and data.manifest:
        other = "root" if "data.root" not in given and "data.manifest" in given else "manifest"
        raise UsageError(
            f"data.root ({data.root}) and data.manifest ({data.manifest}) are both given: take one of them, and switch "
            f"the other off, as with --data.{other} null"
        )
