"""The blocks of docs/another_gan.md: the GANs train, and the faster one to the same weights."""

from pathlib import Path
from typing import Any

import lightning
import torch
from support.pages import blocks, run
from torch import nn
from torch.utils.data import DataLoader

BLOCKS = blocks("docs/another_gan.md", "python")


def names() -> dict[str, Any]:
    found: dict[str, Any] = {"torch": torch}
    for block in BLOCKS:
        run(block, found)
    return found


def trained(name: str, folder: Path) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gan = names()[name]()
        gan.generator, gan.discriminator = nn.Linear(3, 2), nn.Linear(2, 1)
        data = [{"condition": torch.randn(3), "real": torch.randn(2)} for _ in range(20)]
        trainer = lightning.Trainer(
            max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=folder
        )
        trainer.fit(gan, DataLoader(data, batch_size=2))
    assert trainer.global_step == 4 * 2 + 3  # ten micro-batches: windows of 8 for four epochs, then of 4
    assert gan.updates["discriminator"].steps == 25
    return gan


def test_another_gan_trains_and_the_faster_one_to_the_same_weights(tmp_path: Path) -> None:
    gan, faster = trained("MyGAN", tmp_path), trained("MyFasterGAN", tmp_path)
    for weight, same in zip(gan.parameters(), faster.parameters(), strict=True):
        torch.testing.assert_close(same, weight, rtol=1e-5, atol=1e-6)


def test_each_player_owns_the_networks_that_it_declares(tmp_path: Path) -> None:
    """Each keeps to its own player's weights, whatever order the optimizers are in."""
    cycle = names()["CycleGAN"]

    class Whole(cycle):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__()
            self.to_b, self.to_a, self.judge_a, self.judge_b = (nn.Linear(2, 2) for _ in range(4))

        def generate(self, batch: Any) -> Any:
            return self.to_b(batch), self.to_a(batch)

        def generator_loss(self, batch: Any, fake: Any) -> Any:
            return (self.judge_b(fake[0]) + self.judge_a(fake[1])).square().mean()

        def discriminator_loss(self, batch: Any, fake: Any) -> None:
            return None  # it rests

        def configure_optimizers(self) -> Any:
            players = (self.judge_a, self.judge_b), (self.to_b, self.to_a)
            return [torch.optim.SGD([w for net in nets for w in net.parameters()], 0.1) for nets in players]

    gan = Whole()
    before = {name: weight.clone() for name, weight in gan.named_parameters()}
    trainer = lightning.Trainer(
        max_steps=2, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    trainer.fit(gan, DataLoader(torch.randn(8, 2), batch_size=2))
    moved = {name.split(".")[0] for name, weight in gan.named_parameters() if not torch.equal(weight, before[name])}
    assert moved == {"to_a", "to_b"}
