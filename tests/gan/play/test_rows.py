"""What is logged of both players: means since the last row, each over the micro-batches in which a term appeared."""

from pathlib import Path
from typing import Any

from support.resuming import MemoryLogger
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor

from univnet.gan import Updates


class Lazy(ToyGAN):
    """Notes every loss; a term appears on each third micro-batch, and the generator may rest at first."""

    def __init__(self, *args: Any, rest: int = 0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.rest, self.seen, self.losses = rest, 0, list[float]()

    def generator_loss(self, batch: Any, fake: Tensor) -> Any:
        self.seen += 1
        return None if self.seen <= self.rest else super().generator_loss(batch, fake)

    def discriminator_loss(self, batch: Any, fake: Tensor) -> dict[str, Any]:
        terms = super().discriminator_loss(batch, fake)
        self.losses.append(float(terms["loss"]))
        return terms | ({"penalty": float(self.seen)} if self.seen % 3 == 0 else {})


def rows(gan: Lazy, folder: Path, every: int) -> list[tuple[int, dict[str, float]]]:
    logger = MemoryLogger()
    quiet_trainer(folder, logger=logger, log_every_n_steps=every, limit_train_batches=10).fit(gan, toy_loader())
    return logger.rows


def test_a_row_is_the_mean_since_the_last_one(tmp_path: Path) -> None:
    gan = Lazy(Updates(), Updates(accumulate=2))
    first, second = rows(gan, tmp_path, 4)
    assert (first[0], second[0]) == (4, 8)
    assert abs(first[1]["discriminator/loss"] - sum(gan.losses[:4]) / 4) < 1e-12
    assert abs(second[1]["discriminator/loss"] - sum(gan.losses[4:8]) / 4) < 1e-12
    assert first[1]["discriminator/penalty"] == 3.0  # of one micro-batch, not diluted
    assert second[1]["discriminator/penalty"] == 6.0


def test_a_term_that_did_not_appear_is_not_in_the_row(tmp_path: Path) -> None:
    logged = rows(Lazy(), tmp_path, 1)
    assert [step for step, row in logged if "discriminator/penalty" in row] == [3, 6, 9]


def test_logging_goes_on_while_the_generator_rests(tmp_path: Path) -> None:
    gan = Lazy(rest=6)
    logged = rows(gan, tmp_path, 2)
    alone = [(step, row["warmup/loss"]) for step, row in logged if "warmup/loss" in row]
    assert [step for step, _ in alone] == [2, 4, 6]
    assert alone[1][1] == sum(gan.losses[2:4]) / 2
    assert [step for step, row in logged if "generator/loss" in row] == [2, 4]
