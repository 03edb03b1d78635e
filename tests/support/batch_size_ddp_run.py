"""Look for a batch size on two gloo ranks, for test_batch_size_ddp.py: ``python batch_size_ddp_run.py FOLDER``.

First the ranks run out of memory at different sizes, then one fails otherwise.
"""

import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from support.limited import Limited
from support.state import assert_same, state_of
from support.toy import quiet_trainer, toy_data, weights
from univnet.data import EpochSampler, ResumableDataLoader
from univnet.gan.tuner.tuner import Tuner


class Ranked(Limited):
    """Fails in its last forward pass: by then the generator's gradients would have been on their way to the others."""

    def train_dataloader(self) -> ResumableDataLoader:
        ranks, rank = self.trainer.world_size, self.trainer.global_rank
        return ResumableDataLoader(toy_data(80), self.batch_size, EpochSampler(toy_data(80), ranks, rank))

    def generate(self, batch: Any) -> Any:
        if dist.is_initialized() and self.searching:
            raise AssertionError("a rank could wait for the others")
        return super().generate(batch)


def main(folder: Path) -> None:
    trainer = quiet_trainer(folder, devices=2, strategy="ddp", use_distributed_sampler=False)
    gan, rank = Ranked(), trainer.global_rank
    gan.searching, gan.limit = True, 11 if rank else 23
    before = state_of(trainer, gan)
    tuner = Tuner(trainer)
    found = [tuner.scale_batch_size(gan, mode=mode, margin=0.0, target_batch=36) for mode in ("power", "binsearch")]
    gan.batch_size = 4
    assert_same(before, state_of(trainer, gan))
    search = tuner.batch_size_search
    assert search is not None
    gan.searching, gan.limit = False, 1000
    trainer.fit(gan)  # together again
    result = {
        "found": found,
        "trials": [each.size for each in search.trials],
        "examples": search.examples,
        "accumulate": search.accumulate,
        "weights": weights(gan),
    }
    gan.searching = True
    if rank == 1:
        gan.limit, gan.error = 3, lambda: ZeroDivisionError("rank one alone")
    try:
        tuner.scale_batch_size(gan)
    except Exception as error:
        result["failure"] = f"{type(error).__name__}: {error}"
    torch.save(result, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
