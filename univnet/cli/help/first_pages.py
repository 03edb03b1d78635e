"""Which options of the training verbs a new user needs first, in which order; all others are behind ``--help.all``.

Only names stand here: texts and defaults are those of the options themselves, but for ``WORDS``.
"""

from typing import NamedTuple


class FirstPage(NamedTuple):
    """What a verb's ``--help`` shows.

    Attributes:
        about: what the verb does.
        example: arguments to begin with.
        groups: names of options by the title of their group, without the dashes.
    """

    about: str
    example: str
    groups: dict[str, tuple[str, ...]]


_CONFIG = ("config", "print_config")
_DATA = ("data.root", "data.manifest", "data.batch_size", "data.segment_length", "data.num_workers")
_VALIDATION = ("data.validation", "data.validation_manifest", "data.validation_seconds")
_HARDWARE = ("trainer.accelerator", "trainer.devices", "trainer.precision", "matmul_precision")
_TRAINING = {
    "Configuration": _CONFIG,
    "What to train on": (*_DATA, *_VALIDATION, "data.epoch", "data.augment", "data.cache"),
    "Where to begin": ("init_from", "init_weights", "ckpt_path", "seed_everything"),
    "How long, and on what": ("trainer.max_steps", "trainer.max_time", *_HARDWARE, "model.compile", "rollbacks"),
    "How it is watched": (
        "trainer.val_check_interval",
        "trainer.limit_val_batches",
        "trainer.log_every_n_steps",
        "trainer.logger",
        "samples.count",
        "trainer.callbacks",
    ),
    "Networks and losses": (
        "model.generator",
        "model.discriminator",
        "model.mel",
        "model.stft_weight",
        "model.mel_weight",
        "model.feature_weight",
        "model.discriminator_start",
        "model.discriminator_warmup",
    ),
    "Rates and updates": tuple(
        f"model.{player}_{name}"
        for name in ("lr", "schedule", "optimizer", "updates.accumulate", "updates.clip_norm")
        for player in ("generator", "discriminator")
    ),
    "Checkpoints": (
        "checkpoint_last.every_n_train_steps",
        "checkpoint_every.every_n_train_steps",
        "checkpoint_best.monitor",
    ),
    "More": ("help", "help.all"),
}
_SEARCHED = {
    "The run that it is for": (
        *_CONFIG,
        *_DATA,
        "init_from",
        "model.generator_lr",
        "model.discriminator_lr",
        "trainer.devices",
        "trainer.precision",
    ),
    "More": ("help", "help.all"),
}
_RATES = "configs/univnet_c32.yaml --data.root corpus --write rates.yaml"
FIRST_PAGES = {
    "fit": FirstPage(
        "Train a vocoder, or go on training one.", "--config configs/univnet_c32.yaml --data.root corpus", _TRAINING
    ),
    "validate": FirstPage(
        "Measure a checkpoint on the recordings that are kept apart for validation.",
        "--config configs/univnet_c32.yaml --data.root corpus --ckpt_path best.ckpt",
        {
            "What is measured": ("ckpt_path", *_CONFIG),
            "On what": (*_DATA[:2], *_VALIDATION, "data.num_workers", "trainer.limit_val_batches", *_HARDWARE),
            "More": ("help", "help.all"),
        },
    ),
    "find-lr": FirstPage(
        "Find learning rates for both players: each rate is tried for one update, and the loss is watched.",
        f"--config {_RATES}",
        {
            "The search": ("optimizer", "min_lr", "max_lr", "num_training", "mode", "rates", "repeats"),
            "What is watched": ("monitor", "metric", "validation_batches", "early_stop_threshold", "collapse"),
            "What comes of it": ("suggest", "smoothing", "write"),
            "Rates to cycle between": ("cyclical", "cyclical_updates"),
            "Both players at once": ("ratio", "grid_size"),
            **_SEARCHED,
            "The run that it is for": ("ckpt_path", *_SEARCHED["The run that it is for"]),
        },
    ),
    "find-batch-size": FirstPage(
        "Find the batch size that fits into memory, or that trains fastest.",
        "--config configs/univnet_c32.yaml --data.root corpus --margin 0.1",
        {
            "The search": ("mode", "init_val", "max_val", "max_trials", "steps_per_trial"),
            "What comes of it": ("margin", "target_batch", "memory_budget", "write"),
            **_SEARCHED,
        },
    ),
}
ENDING = """\
An update is a step of a player's optimizer; where no player is named, of the generator's. A
micro-batch is a batch of the loader on one device. In a configuration, null stands for none.
Options of a class: univnet {verb} --model.generator.help univnet.Generator
Completion with Tab: univnet --print-completion bash, or zsh; it needs univnet[completion]"""

# For options of Lightning's and jsonargparse's whose own texts do not tell what they mean for two players, or are
# too long. ``--help.all`` has their own texts behind these.
WORDS = {
    "config": "YAML file of options, changed by those that come after it",
    "print_config": "print the configuration that would be used, as YAML, and end",
    "seed_everything": "seed of all random numbers, true for a random one",
    "ckpt_path": "checkpoint: a file, a run's folder, last, or auto (last if there is one)",
    "trainer.max_steps": "generator updates in all, -1 for no end",
    "trainer.max_time": "time after which to end, DD:HH:MM:SS",
    "trainer.accelerator": "kind of device: cpu, gpu, mps",
    "trainer.devices": "number of devices, -1 for all, or their indices, such as [0,2]",
    "trainer.precision": "32-true, bf16-mixed, 16-mixed or 64-true (default: 32-true)",
    "trainer.val_check_interval": "micro-batches (or share of an epoch) per validation (default: 1.0)",
    "trainer.limit_val_batches": "batches of a validation, or a share of them (default: 1.0)",
    "trainer.log_every_n_steps": "generator updates between two rows of the log (default: 50)",
    "trainer.logger": "where logs and checkpoints go, false for nowhere",
    "trainer.callbacks": "Lightning's callbacks, such as univnet.gan.ExponentialMovingAverage",
    "checkpoint_every.every_n_train_steps": "generator updates between checkpoints that are kept",
    "checkpoint_best.monitor": "best.ckpt has the lowest value of this metric",
}
