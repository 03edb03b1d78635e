"""A rule may decide the norm to clip at: here, the running median of the norms seen."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from support.state import assert_same
from support.toy import ToyGAN, by_hand, quiet_trainer, toy_loader, weights
from torch import Tensor

from univnet.gan import NormLimit, Updates
from univnet.gan.updates import Player


class RunningMedian(NormLimit):
    """Clips at the median of all norms so far, the present one included."""

    def __init__(self) -> None:
        self.norms: list[float] = []

    def limit(self, norm: Tensor) -> float:
        self.norms.append(float(norm))
        return float(np.median(self.norms))

    def state_dict(self) -> dict[str, Any]:
        return {"norms": list(self.norms)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.norms = list(state["norms"])


class Watched(ToyGAN):
    """Records the norm that the generator's optimizer gets."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.reached: list[float] = []
        self.before: list[float] = []

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        gradients = [p.grad for p in self.generator.parameters() if p.grad is not None]
        if gradients:  # the generator's optimizer, not the discriminator's
            self.reached.append(float(torch.stack([each.norm() for each in gradients]).norm()))

    def on_train_batch_end(self, *_: Any) -> None:
        self.before.append(float(self.updates["generator"].report["gradient_norm"]))


def test_gradients_are_clipped_at_the_rules_limit(tmp_path: Path) -> None:
    rule = RunningMedian()
    gan = Watched(Updates(clip_norm=rule), Updates(clip_norm=rule))
    quiet_trainer(tmp_path, max_epochs=1).fit(gan, toy_loader())
    medians = [np.median(gan.before[: i + 1]) for i in range(len(gan.before))]
    np.testing.assert_allclose(gan.reached, np.minimum(gan.before, medians), rtol=1e-5)
    assert any(norm > median for norm, median in zip(gan.before, medians, strict=True))
    assert rule.norms == []  # each player has a copy of its own


def test_a_rule_that_always_allows_the_norm_changes_nothing(tmp_path: Path) -> None:
    class Lenient(NormLimit):
        def limit(self, norm: Tensor) -> Tensor:
            return norm

    gan, reference = ToyGAN(Updates(2, clip_norm=Lenient())), ToyGAN()
    quiet_trainer(tmp_path, max_epochs=1).fit(gan, toy_loader())
    by_hand(reference, list(toy_loader()), {"generator": Updates(2), "discriminator": Updates()}, 1)
    torch.testing.assert_close(weights(gan), weights(reference), rtol=1e-5, atol=1e-9)


def test_what_a_rule_has_seen_is_resumed(tmp_path: Path) -> None:
    def run(folder: Path, checkpoint: Path | None = None, epochs: int = 2) -> tuple[Tensor, Any]:
        gan = ToyGAN(Updates(3, clip_norm=RunningMedian()))
        trainer = quiet_trainer(folder, max_epochs=epochs)
        trainer.fit(gan, toy_loader(), ckpt_path=checkpoint, weights_only=True)
        trainer.save_checkpoint(folder / "last.ckpt")
        return weights(gan), torch.load(folder / "last.ckpt", weights_only=True)["gan"]["players"]

    whole, players = run(tmp_path / "whole")
    run(tmp_path / "half", epochs=1)
    again, resumed = run(tmp_path / "again", tmp_path / "half" / "last.ckpt")
    assert torch.equal(again, whole)
    assert_same(resumed, players)
    assert len(players["generator"]["norm_limit"]["norms"]) == players["generator"]["steps"]


def test_a_player_without_a_rule_saves_none() -> None:
    player = Player("generator", Updates(clip_norm=1.0))
    player.bind(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], 0.1), None)
    assert player.state_dict()["norm_limit"] is None
