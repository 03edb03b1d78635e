"""The axis of everything that a callback logs, at whichever hook: the generator's updates made by then."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, DeviceStatsMonitor, LearningRateMonitor
from support.resuming import MemoryLogger
from support.toy import ToyGAN, quiet_trainer, toy_data, toy_loader

from univnet.data import ResumableDataLoader
from univnet.gan import Updates


@pytest.fixture(autouse=True)
def without_psutil(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lightning.pytorch.accelerators.cpu.get_cpu_stats", lambda: {"percent": 50.0})


EARLY = ("on_train_start", "on_train_epoch_start", "on_train_batch_start")
LATE = ("on_train_batch_end", "on_train_epoch_end", "on_validation_start", "on_validation_epoch_end")
HOOKS = (*EARLY, *LATE, "on_validation_end", "on_train_end")


class LogsAtEveryHook(Callback):
    """Logs the updates made by two ways: as Lightning's monitors do, and through the module where that is allowed."""

    def log_at(self, hook: str, trainer: Trainer, pl_module: Any) -> None:
        step = torch.tensor(float(trainer.global_step))
        trainer._logger_connector.log_metrics({f"direct/{hook}": step})
        if hook in ("on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_validation_epoch_end"):
            pl_module.log(f"module/{hook}", step)


def _logging_at(hook: str) -> Any:
    def log(self: LogsAtEveryHook, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        self.log_at(hook, trainer, pl_module)

    return log


for _hook in HOOKS:
    setattr(LogsAtEveryHook, _hook, _logging_at(_hook))


class Validated(ToyGAN):
    def validation_step(self, batch: Any, batch_idx: int) -> None: ...


def rows_of(folder: Path, accumulate: int, max_steps: int, checkpoint: Path | None = None) -> list[Any]:
    logger = MemoryLogger()
    callbacks = [LogsAtEveryHook(), LearningRateMonitor("step"), DeviceStatsMonitor(cpu_stats=True)]
    options: dict[str, Any] = {"max_steps": max_steps, "max_epochs": -1, "val_check_interval": 3}
    torch.manual_seed(0)
    trainer = quiet_trainer(folder, logger=logger, log_every_n_steps=1, callbacks=callbacks, **options)
    trainer.fit(
        Validated(Updates(accumulate), Updates(2), schedulers=schedules),
        ResumableDataLoader(toy_data(40), batch_size=4, shuffle=True),
        toy_loader(8),
        ckpt_path=checkpoint,
        weights_only=True,
    )
    trainer.save_checkpoint(folder / f"{max_steps}.ckpt")
    return logger.rows


def schedules(generator: Any, discriminator: Any) -> Any:
    """A rate that tells the update for which it stands."""
    counting = torch.optim.lr_scheduler.LambdaLR(generator, lambda step: 1e-3 * (1 + step))
    return {"optimizer": generator, "lr_scheduler": {"scheduler": counting, "interval": "step"}}, {
        "optimizer": discriminator
    }


@pytest.mark.parametrize("accumulate", [1, 3])
def test_all_that_callbacks_log_lies_at_the_updates_made(tmp_path: Path, accumulate: int) -> None:
    rows = rows_of(tmp_path, accumulate, 4)
    resumed = rows_of(tmp_path, accumulate, 7, tmp_path / "4.ckpt")
    for some, first, last in ((rows, 0, 4), (resumed, 4, 7)):
        seen = {hook: [step for step, row in some if f"direct/{hook}" in row] for hook in HOOKS}
        missing = {hook for hook in HOOKS if not seen[hook]}
        assert missing <= {"on_train_epoch_start", "on_train_epoch_end"} if first else not missing
        for step, row in some:
            own = {name: value for name, value in row.items() if name.startswith(("direct/", "module/"))}
            assert all(value == step for value in own.values()), (step, own)
        assert set(seen["on_train_batch_start"]) == set(range(first, last))
        assert set(seen["on_train_batch_end"]) >= set(range(first + 1, last + 1))
        assert seen["on_train_end"] == [last]


def test_the_monitored_rate_is_that_of_the_update_that_follows(tmp_path: Path) -> None:
    rates = [(step, row["lr-AdamW"]) for step, row in rows_of(tmp_path, 1, 5) if "lr-AdamW" in row]
    assert [step for step, _ in rates] == [0, 1, 2, 3, 4]
    assert [rate for _, rate in rates] == pytest.approx([1e-2 * 1e-3 * (1 + step) for step, _ in rates])


def test_device_statistics_lie_there_too(tmp_path: Path) -> None:
    key = "DeviceStatsMonitor.on_train_batch_start"
    steps = [step for step, row in rows_of(tmp_path, 1, 3) if any(name.startswith(key) for name in row)]
    assert steps == [0, 1, 2]
