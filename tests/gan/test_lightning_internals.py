"""A test per private name of Lightning: each says what is gone when a new version has lost it.

The first part looks at the names themselves; the second shows that they still do what they are used for, since the
silent ones (an attribute that nobody reads any more) would otherwise break nothing but the numbers.
"""

import copy
import signal
from pathlib import Path
from typing import Any

import lightning
import pytest
import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch.plugins.precision import MixedPrecision
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.utilities.combined_loader import CombinedLoader
from support.resuming import MemoryLogger
from support.toy import ToyGAN, quiet_trainer, toy_loader

from univnet.gan import Updates
from univnet.gan import lightning_internals as internals


def trainer() -> Trainer:
    return Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)


def fit_loop() -> Any:
    return trainer().fit_loop


def epoch_loop() -> Any:
    return trainer().fit_loop.epoch_loop


NAMES = {
    "LightningModule._trainer": (LightningModule, "attached_trainer"),
    "LightningModule._on_before_batch_transfer": (LightningModule, "on_device"),
    "Trainer._data_connector": (trainer, "prepare_data, parts_with_state"),
    "Trainer._checkpoint_connector": (trainer, "parts_with_state"),
    "Trainer._logger_connector": (trainer, "start_from_fresh_loops, log_at_updates"),
    "Trainer._val_check_time_interval": (trainer, "validate_by_epochs_alone"),
    "_FitLoop._combined_loader": (fit_loop, "training_loaders"),
    "_FitLoop._data_fetcher": (fit_loop, "validation_is_due"),
    "_TrainingEpochLoop._batches_that_stepped": (epoch_loop, "log_at_updates"),
    "_LoggerConnector._first_loop_iter": (lambda: trainer()._logger_connector, "log_at_updates"),
    "_ResultCollection._forked_name": (lambda: epoch_loop()._results, "log_at_updates"),
    "_TrainingEpochLoop._should_check_val_fx": (epoch_loop, "validation_is_due, _DueEpochLoop"),
    "_TrainingEpochLoop._skip_next_val": (epoch_loop, "validation_is_due"),
    "_EvaluationLoop._combined_loader": (lambda: epoch_loop().val_loop, "validation_is_due"),
    "Trainer._signal_connector": (trainer, "leave_signals"),
    "Trainer._accelerator_connector": (trainer, "requeue_signal"),
    "_SignalConnector.register_signal_handlers": (lambda: trainer()._signal_connector, "_NoSignals"),
    "_SignalConnector.teardown": (lambda: trainer()._signal_connector, "_NoSignals"),
    "_EvaluationLoop._data_source": (lambda: epoch_loop().val_loop, "validation_loaders, parts_with_state"),
    "CombinedLoader._mode": (lambda: CombinedLoader([]), "combination_mode"),
    "DDPStrategy._ddp_kwargs": (DDPStrategy, "ddp_options"),
    "DDPStrategy._launcher": (DDPStrategy, "hidden_group"),
    "LightningCLI._parse_ckpt_path": (lambda: LightningCLI, "TrainingCLI"),
    "LightningCLI._instantiate_trainer": (lambda: LightningCLI, "TrainingCLI"),
    "LightningCLI._prepare_subcommand_kwargs": (lambda: LightningCLI, "TrainingCLI"),
}


@pytest.mark.parametrize("name", NAMES)
def test_the_name_is_there(name: str) -> None:
    make, where = NAMES[name]
    gone = f"Lightning {lightning.__version__} has no {name} any more: {where} must find another way"
    assert hasattr(make(), name.split(".")[1]), gone


def test_the_names_that_are_written_are_the_ones_that_the_constructor_writes() -> None:
    attributes = vars(trainer())
    before = attributes.keys()
    changed = trainer()
    internals.validate_by_epochs_alone(changed, 3, 5)
    assert vars(changed).keys() == before, "Lightning's Trainer no longer reads one of these attributes"
    assert (changed.limit_val_batches, changed.check_val_every_n_epoch) == (3, 5)
    strategy = DDPStrategy()
    for name in ("setup_distributed", "configure_ddp", "reduce_boolean_decision"):
        assert hasattr(strategy, name), f"DDPStrategy.{name} is gone: hidden_group must hide something else"


@pytest.mark.parametrize("accumulate", [1, 3])
def test_what_any_hook_logs_lies_at_the_updates_made_by_then(tmp_path: Path, accumulate: int) -> None:
    logger = MemoryLogger()

    class LogsEverywhere(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            trainer._logger_connector.log_metrics({"direct": torch.tensor(trainer.global_step)})
            pl_module.log("before", float(trainer.global_step))
            pl_module.log("forked", float(trainer.global_step), on_step=True, on_epoch=True)

        def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            trainer._logger_connector.log_metrics({"direct": torch.tensor(trainer.global_step)})
            pl_module.log("after", float(trainer.global_step))

    options: dict[str, Any] = {"logger": logger, "log_every_n_steps": 1, "callbacks": [LogsEverywhere()]}
    quiet_trainer(tmp_path, max_epochs=2, **options).fit(ToyGAN(Updates(accumulate)), toy_loader(16))
    for name in ("direct", "before", "forked_step", "after"):
        rows = [(step, row[name]) for step, row in logger.rows if name in row]
        assert len(rows) == (16 if name == "direct" else 8), name
        assert all(step == value for step, value in rows), (name, rows)
    assert [step for step, row in logger.rows if "forked_epoch" in row] == [4, 8] if accumulate == 1 else [2, 4]


def test_the_module_knows_its_trainer_only_while_attached(tmp_path: Path) -> None:
    module = ToyGAN()
    assert internals.attached_trainer(module) is None
    fitting = quiet_trainer(tmp_path, max_epochs=1)
    fitting.fit(module, toy_loader(1))
    assert internals.attached_trainer(module) is fitting


def test_the_options_are_the_ones_that_ddp_wraps_with() -> None:
    strategy = DDPStrategy(bucket_cap_mb=7)
    internals.ddp_options(strategy)["find_unused_parameters"] = True
    assert internals.ddp_options(strategy) == {"bucket_cap_mb": 7, "find_unused_parameters": True}


def test_the_plugin_scales_with_the_scaler_that_is_lent(tmp_path: Path) -> None:
    own, lent = (torch.amp.GradScaler("cpu", init_scale=scale) for scale in (4.0, 32.0))
    plugin, scaled = MixedPrecision("16-mixed", "cpu", own), {}

    class Lends(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
            for scaler in (lent, None):
                with internals.lent_scaler(plugin, scaler):
                    scaled[scaler] = float(plugin.pre_backward(torch.tensor(1.0), pl_module))

    quiet_trainer(tmp_path, max_epochs=1, plugins=plugin, callbacks=[Lends()]).fit(ToyGAN(), toy_loader(1))
    assert scaled == {lent: 32.0, None: 1.0}
    assert plugin.scaler is own


def test_loaders_of_a_fit_are_found_and_batches_go_through_the_hooks(tmp_path: Path) -> None:
    training, validation = toy_loader(3), toy_loader(2)
    seen: dict[str, Any] = {}

    class Doubles(ToyGAN):
        def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
            return [2 * each for each in batch]

        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    class Look(Callback):
        def on_train_batch_start(self, trainer: Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
            combined = internals.training_loaders(trainer)
            seen["training"] = combined.flattened
            seen["mode"] = internals.combination_mode(combined)
            seen["validation"] = internals.validation_loaders(trainer)
            raw = next(iter(training))
            seen["batch"] = raw, internals.on_device(trainer, pl_module, raw)

    fitting = quiet_trainer(tmp_path, max_epochs=1, limit_val_batches=0, callbacks=[Look()])
    fitting.fit(Doubles(), training, validation)
    assert seen["training"] == [training]
    assert seen["mode"] == "max_size_cycle"
    assert seen["validation"] is validation
    raw, prepared = seen["batch"]
    torch.testing.assert_close(prepared[0], 2 * raw[0])


def test_data_are_attached_and_prepared_as_fit_does() -> None:
    class Data(LightningDataModule):
        prepared = 0

        def prepare_data(self) -> None:
            self.prepared += 1

    data, owner, module = Data(), trainer(), ToyGAN()
    internals.prepare_data(owner, module, data)
    assert data.prepared == 1
    assert data.trainer is owner


def test_hyperparameters_are_read_without_making_any() -> None:
    class Plain(LightningDataModule): ...

    class Kept(LightningDataModule):
        def __init__(self, size: int) -> None:
            super().__init__()
            self.save_hyperparameters()

    plain, kept = Plain(), Kept(3)
    assert internals.set_hyperparameters(plain) == {}
    assert "_hparams" not in vars(plain), "reading made some: Lightning keeps them elsewhere now"
    assert internals.set_hyperparameters(kept) == {"size": 3}
    other = copy.copy(kept)
    internals.own_hyperparameters(other)
    other.hparams["size"] = 4
    assert kept.hparams["size"] == 3


def test_fresh_loops_go_on_counting_where_the_old_ones_were(tmp_path: Path) -> None:
    fitting = quiet_trainer(tmp_path, max_epochs=2)
    fitting.fit(ToyGAN(), toy_loader(3))
    loop, step, epoch = fitting.fit_loop, fitting.global_step, fitting.current_epoch
    parts = internals.parts_with_state(fitting)
    for part in (fitting, fitting.strategy, fitting.precision_plugin, fitting.validate_loop):
        assert any(each is part for each in parts)
    internals.start_from_fresh_loops(fitting)
    assert fitting.fit_loop is not loop
    assert (fitting.global_step, fitting.current_epoch) == (step, epoch)
    assert fitting.fit_loop.max_epochs == 2
    assert not fitting.fit_loop.restarting


def test_ranks_that_last_one_fit_are_told_from_those_that_stay() -> None:
    spawned = Trainer(accelerator="cpu", devices=2, strategy="ddp_spawn", logger=False, enable_checkpointing=False)
    assert internals.starts_ranks_per_fit(spawned.strategy)
    assert not internals.starts_ranks_per_fit(trainer().strategy)


def test_a_validation_is_due_where_lightning_then_validates(tmp_path: Path) -> None:
    seen, done, within = [], [], []

    class Validated(ToyGAN):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            within.append(internals.validation_is_due(self.trainer))

    class Look(Callback):
        def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
            seen.append(internals.validation_is_due(trainer))
            done.append(False)

        def on_validation_end(self, trainer: Trainer, pl_module: Any) -> None:
            done[-1] = True
            within.append(internals.validation_is_due(trainer))

        def on_train_epoch_end(self, trainer: Trainer, pl_module: Any) -> None:
            assert not internals.validation_is_due(trainer)

    fitting = quiet_trainer(
        tmp_path,
        max_epochs=2,
        val_check_interval=3,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=[Look()],
    )
    fitting.fit(Validated(), toy_loader(16, batch_size=4), toy_loader(8, batch_size=4))
    assert seen == done == [False, False, True, False, False, True, False, False]
    assert within == 2 * [True, True, False]


def test_two_more_hooks_stand_where_a_run_can_be_stopped(tmp_path: Path) -> None:
    called: list[str] = []

    class Validated(ToyGAN):
        def validation_step(self, batch: Any, batch_idx: int) -> None: ...

    class Note(Callback):
        def on_fetch_start(self, *_: Any) -> None:
            called.append("fetch")

        def on_train_batch_start(self, *_: Any) -> None:
            called.append("start")

        def on_train_batch_end(self, *_: Any) -> None:
            called.append("end")

        def on_micro_batch_end(self, trainer: Trainer, pl_module: Any) -> None:
            assert trainer.fit_loop.epoch_loop.batch_progress.total.completed == called.count("end")
            called.append("behind")

        def on_validation_start(self, *_: Any) -> None:
            called.append("validation")

    fitting = quiet_trainer(tmp_path, callbacks=[Note()], num_sanity_val_steps=0)
    fitting.fit(Validated(), toy_loader(8), toy_loader(4))
    micro_batch = ["fetch", "start", "end", "behind"]
    assert called == [*micro_batch, *micro_batch, "validation"]


def test_signals_are_left_alone_for_one_fit(tmp_path: Path) -> None:
    seen, over = [], []

    class Look(Callback):
        def setup(self, trainer: Trainer, pl_module: Any, stage: str) -> None:
            if not seen:
                internals.leave_signals(trainer, lambda: over.append(signal.getsignal(signal.SIGTERM)))

        def on_train_start(self, *_: Any) -> None:
            seen.append(signal.getsignal(signal.SIGTERM))

    before, fitting = signal.getsignal(signal.SIGTERM), quiet_trainer(tmp_path, callbacks=[Look()])
    fitting.fit(ToyGAN(), toy_loader(4))
    assert seen == over == [before]
    fitting.fit_loop.epoch_progress.reset()
    fitting.fit(ToyGAN(), toy_loader(4))
    assert seen[1] is not before, "Lightning no longer handles SIGTERM: there may be nothing left to keep it from"
    assert over == [before]


def test_slurms_signal_is_known_where_it_queues_jobs_again(monkeypatch: pytest.MonkeyPatch) -> None:
    assert internals.requeue_signal(trainer()) is None
    for name in ("SLURM_NTASKS", "SLURM_JOB_NAME", "SLURM_JOB_ID", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID"):
        monkeypatch.setenv(name, "1" if name == "SLURM_NTASKS" else "0")
    assert internals.requeue_signal(trainer()) == signal.SIGUSR1
