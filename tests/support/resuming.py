"""Runs that save everywhere, stop, and go on, and all that they log."""

from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from lightning.pytorch.plugins.precision import MixedPrecision

from support.toy import ToyGAN, quiet_trainer, toy_data, toy_loader
from univnet.data import ResumableDataLoader
from univnet.gan import CyclicalLR, Updates


class MemoryLogger(Logger):
    """Keeps every scalar as it is logged."""

    name, version = "memory", 0

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[tuple[int, dict[str, float]]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None: ...

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append((step or 0, dict(metrics)))


class SaveEverywhere(Callback):
    """Writes a checkpoint after every micro-batch, around every validation and at every epoch's end.

    Notes the rows logged by then.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.rows = folder, dict[str, int]()

    def save(self, trainer: Any, name: str) -> None:
        trainer.save_checkpoint(self.folder / f"{name}.ckpt")
        self.rows[name] = len(trainer.logger.rows)

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"batch{trainer.fit_loop.total_batch_idx}")

    def on_validation_start(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"validating{trainer.fit_loop.total_batch_idx}")

    def on_validation_end(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"validation{trainer.fit_loop.total_batch_idx}")

    def on_train_epoch_end(self, trainer: Any, *args: Any) -> None:
        self.save(trainer, f"epoch{trainer.current_epoch}")


def schedulers(generator: Any, discriminator: Any) -> Any:
    cyclical = CyclicalLR(generator, 1e-3, 1e-2, window="hann", step_size_up=3)
    return (
        {"optimizer": generator, "lr_scheduler": {"scheduler": cyclical, "interval": "step"}},
        {"optimizer": discriminator, "lr_scheduler": torch.optim.lr_scheduler.StepLR(discriminator, 1, 0.5)},
    )


def plateaus(generator: Any, discriminator: Any) -> Any:
    schedule = torch.optim.lr_scheduler.ReduceLROnPlateau(generator, factor=0.5, patience=0, threshold=0.9)
    return (
        {"optimizer": generator, "lr_scheduler": {"scheduler": schedule, "monitor": "val/l2"}},
        {"optimizer": discriminator},
    )


class Validated(ToyGAN):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        x, y = batch
        self.log("val/l2", (self.generator(x) - y).square().mean())


def gan(validated: bool) -> ToyGAN:
    make, schedule = (Validated, plateaus) if validated else (ToyGAN, schedulers)
    updates = Updates(3, clip_norm=1.0), Updates({0: 2, 1: 4})
    return make(*updates, noise=0.5, schedulers=schedule, dtype=torch.float32)


def loader(workers: int) -> ResumableDataLoader:
    data = toy_data(40, torch.float32)
    return ResumableDataLoader(data, batch_size=4, shuffle=True, num_workers=workers)


def trained(
    folder: Path,
    workers: int = 0,
    fp16: bool = False,
    validated: bool = False,
    checkpoint: Path | None = None,
    save: bool = False,
    max_steps: int = -1,
    val_check_interval: int = 5,
) -> Any:
    """Train two epochs of ten micro-batches, or as many updates as said.

    Return the final checkpoint, all rows logged, and the saver.
    """
    torch.manual_seed(5)
    saver, logger = SaveEverywhere(folder), MemoryLogger()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12, growth_interval=2)
    trainer = quiet_trainer(
        folder,
        max_epochs=2,
        logger=logger,
        log_every_n_steps=1,
        num_sanity_val_steps=0,
        val_check_interval=val_check_interval,
        max_steps=max_steps,
        callbacks=[saver] if save else [],
        plugins=MixedPrecision("16-mixed", "cpu", scaler) if fp16 else None,
    )
    validation = toy_loader(8, dtype=torch.float32) if validated else None
    if validation:  # as AudioDataModule does: an iterator takes no random number from training
        validation.generator = torch.Generator()
    trainer.fit(gan(validated), loader(workers), validation, ckpt_path=checkpoint, weights_only=True)
    trainer.save_checkpoint(folder / "final.ckpt")
    final = torch.load(folder / "final.ckpt", weights_only=True)
    return final | final["gan"]["players"] | {"rng": final["gan"]["rng"]}, logger.rows, saver


PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "generator", "discriminator", "rng", "global_step", "epoch")
