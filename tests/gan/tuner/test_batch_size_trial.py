"""What a trial of a batch size is: training, validation and averages, as they will be."""

from pathlib import Path
from typing import Any

import pytest
from lightning.pytorch.callbacks import Callback
from support.limited import Limited, cuda_error, noted
from support.toy import quiet_trainer, toy_loader
from torch.utils.data import DataLoader

from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, Updates
from univnet.gan.tuner.tuner import Tuner


def test_a_trial_is_the_real_thing(tmp_path: Path) -> None:
    log = tmp_path / "log"
    gan = Limited(10, examples=9, log=log, generator=Updates({0: 1, 7: 8}), discriminator=Updates(3))
    tuner = Tuner(quiet_trainer(tmp_path))
    tuner.scale_batch_size(gan, steps_per_trial=1, init_val=4, max_trials=1)
    (lines,) = noted(log)
    full = [line for line in lines if line[0] == 4]
    # Two full micro-batches of 4 an epoch, and the example that is left, which does not count.
    assert [line[0] for line in lines[:4]] == [4, 4, 1, 4]
    assert {line[1] for line in lines} == {0, 1}
    assert len(full) == 4
    # At last there is a forward pass with the state of both optimizers and the gradients of open windows.
    assert full[0][2:] == (0, 1)  # the generator's backward pass comes first
    assert full[-1][2:] == (2, 2)


def test_a_trial_lasts_until_a_player_that_mostly_rests_has_updated(tmp_path: Path) -> None:
    log = tmp_path / "log"
    gan = Limited(log=log, generator=Updates(2, every=5))
    tuner = Tuner(quiet_trainer(tmp_path))
    tuner.scale_batch_size(gan, steps_per_trial=1, init_val=4, max_trials=1)
    (lines,) = noted(log)
    assert len(lines) == 20  # two windows of two micro-batches, of which every fifth is played
    assert lines[9][2:] == (1, 1)
    assert lines[-1][2:] == (2, 1)
    assert tuner.batch_size_search is not None
    assert [trial.resting for trial in tuner.batch_size_search.trials] == [()]


def test_steps_per_trial_are_full_micro_batches(tmp_path: Path) -> None:
    log = tmp_path / "log"
    tuner = Tuner(quiet_trainer(tmp_path))
    tuner.scale_batch_size(Limited(log=log), steps_per_trial=7, init_val=16, max_trials=1)
    assert [line[0] for line in noted(log)[0]] == [16] * 7


@pytest.mark.usefixtures("here")
def test_the_batch_size_of_validation_counts(tmp_path: Path) -> None:
    class Validated(Limited):
        def val_dataloader(self) -> DataLoader:
            return toy_loader(40, self.batch_size)

        def validation_step(self, batch: Any, batch_idx: int) -> None:
            if len(batch[0]) > 5:
                raise cuda_error()

    gan = Validated()
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, mode="binsearch", init_val=4, margin=0.0) == 5
    unvalidated = quiet_trainer(tmp_path, limit_val_batches=0)
    assert Tuner(unvalidated).scale_batch_size(gan, init_val=4, max_val=8, margin=0.0) == 8


@pytest.mark.usefixtures("here")
def test_averages_hold_weights_and_other_callbacks_rest(tmp_path: Path) -> None:
    seen = []

    class Looking(Limited):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            seen.append([(type(each).__name__, getattr(each, "n_averaged", None)) for each in self.trainer.callbacks])

        def val_dataloader(self) -> DataLoader:
            return toy_loader(4)

    late = [
        ExponentialMovingAverage(update_starting_at_step=1000),
        StochasticWeightAveraging(1e-3, swa_epoch_start=0.9, player="discriminator"),
    ]
    trainer = quiet_trainer(tmp_path, callbacks=[*late, Callback()])
    Tuner(trainer).scale_batch_size(Looking(), max_trials=1)
    held = [("ExponentialMovingAverage", 1), ("StochasticWeightAveraging", 1)]
    assert [each[:2] for each in seen] == [held]
    assert [name for name, _ in seen[0][2:]] == ["_Observer"]
    assert [each.n_averaged for each in late] == [0, 0]


@pytest.mark.usefixtures("where")
def test_a_player_that_rests_is_told_of_unless_the_module_begins_its_game(tmp_path: Path) -> None:
    class Late(Limited):
        start = 1000

        def discriminator_loss(self, batch: Any, fake: Any) -> Any:
            return super().discriminator_loss(batch, fake) if self.global_step >= self.start else None

    class Ready(Late):
        def on_batch_size_trial(self) -> None:
            self.start = 0

    with pytest.warns(UserWarning, match="the discriminator was not trained in the trials"):
        assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(Late(5), init_val=4, max_trials=2, margin=0.0) == 8
    gan = Ready(5)
    assert Tuner(quiet_trainer(tmp_path)).scale_batch_size(gan, init_val=4, max_trials=2, margin=0.0) == 4
    assert gan.start == 1000


@pytest.mark.usefixtures("here")
def test_a_trainer_that_has_ended_can_be_tried(tmp_path: Path) -> None:
    gan, trainer = Limited(5), quiet_trainer(tmp_path, max_steps=3, max_epochs=1)
    trainer.fit(gan)
    assert Tuner(trainer).scale_batch_size(gan, init_val=4, margin=0.0) == 4
    assert trainer.global_step == 3
