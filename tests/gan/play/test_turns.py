"""Who has a turn, on which fakes, with which forward passes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor

from univnet.gan import Updates
from univnet.gan.play.turns import turns_of
from univnet.gan.updates import Player


def played(order: Any, fresh: bool, **repeat: int) -> list[tuple[str, bool, bool, bool]]:
    players = [Player(name, Updates(repeat=repeat.get(name, 1))) for name in ("generator", "discriminator")]
    turns = turns_of(players, order, fresh)
    return [(each.player.name[0], each.generates, each.with_gradient, each.moves) for each in turns]


def test_the_turns_of_each_order() -> None:
    assert played("simultaneous", False) == [("g", True, True, False), ("d", False, False, True)]
    assert played("generator_first", False) == [("g", True, True, True), ("d", False, False, True)]
    assert played("generator_first", True) == [("g", True, True, True), ("d", True, False, True)]
    assert played("discriminator_first", False) == [("d", True, True, True), ("g", False, True, True)]
    assert played("discriminator_first", True) == [("d", True, False, True), ("g", True, True, True)]
    twice = [("d", True, False, True), ("d", True, True, True), ("g", False, True, True)]
    assert played("discriminator_first", False, discriminator=2) == twice


class Counting(ToyGAN):
    """Counts forward passes of the generator, with gradient and without, and calls of the losses."""

    def __init__(self, *args: Any, order: Any = "simultaneous", fresh_fakes: bool = False) -> None:
        super().__init__(*args)
        self.order, self.fresh_fakes = order, fresh_fakes
        self.calls: list[str] = []

    def generate(self, batch: Any) -> Tensor:
        self.calls.append("forward" if torch.is_grad_enabled() else "forward without gradient")
        return super().generate(batch)

    def generator_loss(self, batch: Any, fake: Tensor) -> Any:
        self.calls.append("g")
        return super().generator_loss(batch, fake)

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Any:
        self.calls.append("d")
        assert not fake.requires_grad
        return super().discriminator_loss(batch, fake)


def test_no_forward_pass_is_spent_on_a_player_that_does_not_play(tmp_path: Path) -> None:
    gan = Counting(Updates(every=3), Updates(every=2))
    quiet_trainer(tmp_path, limit_train_batches=6).fit(gan, toy_loader())
    second, third = ["forward without gradient", "d"], ["forward", "g"]
    assert gan.calls == [*second, *third, *second, "forward", "g", "d"]
    assert gan.updates["generator"].steps == 2
    assert gan.updates["discriminator"].steps == 3
    assert gan.updates["generator"].micro_batches == 2


def test_the_window_of_a_player_that_rests_on_the_last_micro_batch_closes_with_the_epoch(
    tmp_path: Path,
) -> None:
    gan = ToyGAN(Updates(accumulate=4, every=2), Updates())
    quiet_trainer(tmp_path, limit_train_batches=7, max_epochs=2).fit(gan, toy_loader())
    assert gan.updates["generator"].steps == 2
    assert gan.updates["generator"].micro_batches == 7
    assert gan.updates["generator"].position == 0
    assert gan.global_step == 2


def test_several_updates_on_one_micro_batch_each_have_their_own_fakes(tmp_path: Path) -> None:
    gan = Counting(order="discriminator_first")
    gan.updates["discriminator"].settings = Updates(repeat=3)
    trainer = quiet_trainer(tmp_path, limit_train_batches=2)
    trainer.fit(gan, toy_loader())
    dry = ["forward without gradient", "d"]
    assert gan.calls == [*dry, *dry, "forward", "d", "g"] * 2
    assert gan.updates["discriminator"].steps == 6
    assert trainer.global_step == 2


def test_what_cannot_be_played_is_refused() -> None:
    with pytest.raises(ValueError, match="order must be one of simultaneous, generator_first"):
        _Ordered(order="random")
    with pytest.raises(ValueError, match=r"discriminator_updates\.repeat needs an order of play"):
        _Ordered(discriminator_updates=Updates(repeat=2))
    with pytest.raises(ValueError, match=r"every must be a whole number ≥ 1, got 0; repeat must .* got 1.5"):
        Updates(every=0, repeat=1.5)
    with pytest.raises(ValueError, match="accumulate must be 1, got 2"):
        Updates(repeat=2, accumulate=2)


class _Ordered(ToyGAN):
    def __init__(self, **options: Any) -> None:
        super(ToyGAN, self).__init__(**options)
