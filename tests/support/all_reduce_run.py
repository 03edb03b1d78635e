"""Train on two gloo ranks with all gradients sent and with the players' own alone, for test_all_reduce.py.

``python all_reduce_run.py FOLDER``: each of ``KINDS`` in both ways, one after the other.
"""

import sys
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.strategies import DDPStrategy
from torch.distributed import GradBucket
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook

from support.ddp_run import Distributed, DistributedShared
from support.toy import quiet_trainer, weights
from univnet.gan import Updates

# The module's class, whether gradients are views of the buckets, and a bucket's size in MB.
KINDS: dict[str, tuple[type[Distributed], bool, float]] = {
    "buckets of one network": (Distributed, False, 1e-4),
    "gradients in the buckets": (Distributed, True, 1e-4),
    "one forward for both players": (DistributedShared, False, 1e-4),
    "one bucket for both networks": (Distributed, False, 25),
}


class Counted(Callback):
    """DDP's own way to reduce, counted; a hook that is there is kept."""

    bytes_sent = 0

    def on_train_start(self, trainer: Any, *args: Any) -> None:
        trainer.strategy.model.register_comm_hook(self, self.reduced)

    @staticmethod
    def reduced(counted: "Counted", bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
        counted.bytes_sent += bucket.buffer().nbytes
        return allreduce_hook(None, bucket)  # type: ignore[arg-type] # of all ranks


def trained(folder: Path, kind: type[Distributed], view: bool, bucket: float, own: bool) -> dict[str, Any]:
    """Train, and return the weights, the bytes that this rank has sent, and the windows and bytes of each player."""
    torch.manual_seed(0)
    gan = kind(Updates(3, clip_norm=1.0), Updates(2, clip_value=0.5))
    strategy = DDPStrategy(process_group_backend="gloo", bucket_cap_mb=bucket, gradient_as_bucket_view=view)  # type: ignore[arg-type]
    counted = Counted()
    trainer = quiet_trainer(
        folder,
        devices=2,
        strategy=strategy,
        use_distributed_sampler=False,
        max_epochs=2,
        callbacks=[] if own else [counted],
    )
    trainer.fit(gan)
    return {
        "weights": weights(gan),
        "bytes": (gan._own_gradients if own else counted).bytes_sent,
        "windows": {name: player.steps for name, player in gan.updates.items()},
        "own": {name: sum(p.nbytes for p in player.parameters) for name, player in gan.updates.items()},
        "rank": trainer.global_rank,
    }


def main(folder: Path) -> None:
    for name, kind in KINDS.items():
        for own in (False, True):
            found = trained(folder, *kind, own)
            torch.save(found, folder / f"{name}, {'own' if own else 'whole'}, {found['rank']}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
