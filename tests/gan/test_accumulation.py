"""Accumulation, against Lightning's own for one optimizer, and against the definitions worked out by hand."""

from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import Callback, GradientAccumulationScheduler
from support.toy import Stream, ToyGAN, by_hand, quiet_trainer, toy_loader, weights
from torch import Tensor, nn
from torch.utils.data import DataLoader

from univnet.gan import GANModule, Updates


def regressor() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).double()


class OnePlayer(L.LightningModule):
    """What Lightning's automatic optimization trains."""

    def __init__(self) -> None:
        super().__init__()
        self.network = regressor()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        return (self.network(x) - y).square().mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.network.parameters(), 1e-2)


class TwoPlayers(GANModule):
    """The same loss as one player of two; the other minds its own business."""

    def __init__(self, player: str, accumulate: Any) -> None:
        super().__init__(Updates(accumulate), Updates(accumulate))
        self.player, self.network, self.other = player, regressor(), nn.Linear(1, 1).double()

    def generate(self, batch: Any) -> None:
        return None

    def generator_loss(self, batch: Any, fake: Any) -> Tensor:
        return self._loss("generator", batch)

    def discriminator_loss(self, batch: Any, fake: Any) -> Tensor:
        return self._loss("discriminator", batch)

    def _loss(self, player: str, batch: Any) -> Tensor:
        x, y = batch
        return (self.network(x) - y).square().mean() if player == self.player else self.other(x[:, :1]).mean()

    def configure_optimizers(self) -> Any:
        optimizers = [torch.optim.AdamW(net.parameters(), 1e-2) for net in (self.network, self.other)]
        return optimizers if self.player == "generator" else optimizers[::-1]


@pytest.mark.parametrize("player", ["generator", "discriminator"])
@pytest.mark.parametrize("k", [1, 3, 4])
def test_full_windows_equal_lightnings_bit_for_bit(player: str, k: int, tmp_path: Any) -> None:
    full = 10 // k * k  # on a short window Lightning still divides by K, which is what the next test is about
    one, two = OnePlayer(), TwoPlayers(player, k)
    options = {"max_epochs": 3, "limit_train_batches": full}
    quiet_trainer(tmp_path, accumulate_grad_batches=k, **options).fit(one, toy_loader())
    quiet_trainer(tmp_path, **options).fit(two, toy_loader())
    assert torch.equal(weights(one.network), weights(two.network))
    assert two.updates[player].steps == 3 * full // k


@pytest.mark.parametrize("k", [{"generator": 1, "discriminator": 3}, {"generator": 3, "discriminator": 4}])
def test_short_last_windows_are_means_over_what_they_hold(k: dict[str, int], tmp_path: Any) -> None:
    settings = {name: Updates(accumulate) for name, accumulate in k.items()}
    ours, reference = ToyGAN(*settings.values()), ToyGAN()
    quiet_trainer(tmp_path, max_epochs=3).fit(ours, toy_loader())
    by_hand(reference, list(toy_loader()), settings, epochs=3)
    torch.testing.assert_close(weights(ours), weights(reference), rtol=1e-11, atol=1e-13)
    for name, player in ours.updates.items():
        assert (player.steps, player.micro_batches) == (3 * -(-10 // k[name]), 30)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_k_micro_batches_equal_one_batch(optimizer: str, tmp_path: Any) -> None:
    small = ToyGAN(Updates(4), Updates(4), optimizer)
    large = ToyGAN(optimizer=optimizer)
    quiet_trainer(tmp_path, max_epochs=5).fit(small, toy_loader(48, batch_size=3))
    quiet_trainer(tmp_path, max_epochs=5).fit(large, toy_loader(48, batch_size=12))
    torch.testing.assert_close(weights(small), weights(large), rtol=1e-12, atol=1e-14)


class StepsPerEpoch(Callback):
    def __init__(self) -> None:
        self.totals = [0]

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        self.totals.append(trainer.global_step)

    @property
    def steps(self) -> list[int]:
        return [after - before for before, after in zip(self.totals, self.totals[1:], strict=False)]


@pytest.mark.parametrize("schedule", [{0: 8, 4: 4, 8: 1}, {1: 2, 3: 4}, {2: 3}])
def test_epoch_schedule_makes_as_many_updates_as_lightnings_scheduler(schedule: dict, tmp_path: Any) -> None:
    theirs, ours, asked = StepsPerEpoch(), StepsPerEpoch(), dict(schedule)
    callbacks = [theirs, GradientAccumulationScheduler({**({} if 0 in schedule else {0: 1}), **schedule})]
    quiet_trainer(tmp_path, max_epochs=12, callbacks=callbacks).fit(OnePlayer(), toy_loader())
    quiet_trainer(tmp_path, max_epochs=12, callbacks=[ours]).fit(TwoPlayers("generator", schedule), toy_loader())
    assert ours.steps == theirs.steps
    if 8 in schedule:
        assert ours.steps == [2] * 4 + [3] * 4 + [10] * 4
    assert schedule == asked


def test_unknown_length_closes_the_last_window(tmp_path: Any) -> None:
    known, unknown = (ToyGAN(Updates(3), Updates(4)) for _ in range(2))
    quiet_trainer(tmp_path, max_epochs=2).fit(known, toy_loader())
    quiet_trainer(tmp_path, max_epochs=2).fit(unknown, DataLoader(Stream(), batch_size=4))
    assert unknown.updates["generator"].steps == 8
    assert torch.equal(weights(known), weights(unknown))


class Validated(ToyGAN):
    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.generate(batch)


def test_validation_inside_an_open_window_changes_nothing(tmp_path: Any) -> None:
    plain, validated = ToyGAN(Updates(4), Updates(3)), Validated(Updates(4), Updates(3))
    quiet_trainer(tmp_path, max_epochs=2).fit(plain, toy_loader())
    trainer = quiet_trainer(tmp_path, max_epochs=2, val_check_interval=1)
    trainer.fit(validated, toy_loader(), toy_loader(8))
    assert torch.equal(weights(plain), weights(validated))


class SkipsRest(ToyGAN):
    """Ends each epoch after five of its ten micro-batches, which no loader announces."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.positions: list[int] = []

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> int | None:
        return -1 if batch_idx == 5 else None

    def on_train_batch_end(self, *args: Any) -> None:
        self.positions.append(self.updates["generator"].position)


def test_an_epoch_cut_short_does_not_leak_into_the_next(tmp_path: Any, caplog: Any) -> None:
    gan = SkipsRest(Updates(4))
    quiet_trainer(tmp_path, max_epochs=2).fit(gan, toy_loader())
    assert gan.positions == [1, 2, 3, 0, 1] * 2
    assert "generator: dropped 1 micro-batches" in caplog.text


@pytest.mark.parametrize(("k_generator", "k_discriminator"), [(1, 2), (2, 1), (3, 1)])
def test_max_steps_and_checkpoints_count_generator_updates(
    k_generator: int, k_discriminator: int, tmp_path: Any
) -> None:
    checkpoint = L.pytorch.callbacks.ModelCheckpoint(tmp_path, "{step}", every_n_train_steps=4, save_top_k=-1)
    gan = ToyGAN(Updates(k_generator), Updates(k_discriminator))
    options: dict[str, Any] = {"max_epochs": -1, "max_steps": 10, "enable_checkpointing": True}
    trainer = quiet_trainer(tmp_path, callbacks=[checkpoint], **options)
    trainer.fit(gan, toy_loader())
    assert trainer.global_step == gan.updates["generator"].steps == 10
    assert sorted(path.name for path in tmp_path.glob("*.ckpt")) == ["step=4.ckpt", "step=8.ckpt"]


def test_settings_report_every_mistake_at_once() -> None:
    with pytest.raises(ValueError, match=r"accumulate.*clip_norm.*clip_value.*max_nonfinite"):
        Updates(accumulate=0, clip_norm=-1.0, clip_value=0.0, max_nonfinite=0)


@pytest.mark.parametrize("schedule", [{-1: 2}, {1: 2, -3: 4}, {0: 2, "2": 1}, {1: 0, 3: 4}, {0: 2, 2: "2"}, {0: 1.5}])
def test_a_schedule_has_whole_epochs_and_numbers(schedule: Any) -> None:
    with pytest.raises(ValueError, match=r"accumulate must be a whole number ≥ 1, or \{epoch ≥ 0: number ≥ 1\}"):
        Updates(accumulate=schedule)
