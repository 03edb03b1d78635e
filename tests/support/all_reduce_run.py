"""Train on two gloo ranks with and without the players' own buckets, for test_all_reduce.py.

``python all_reduce_run.py FOLDER HOW``: HOW is ``whole`` (DDP's own way, with a hook that counts), ``own``, or one of
both with ``-view`` (gradients are views of the buckets) or ``-shared`` (one discriminator forward for both players).
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

sent = 0


def counting(state: Any, bucket: GradBucket) -> torch.futures.Future[torch.Tensor]:
    global sent
    sent += bucket.buffer().nbytes
    return allreduce_hook(state, bucket)


class Whole(Callback):
    def on_train_start(self, trainer: Any, *args: Any) -> None:
        trainer.strategy.model.register_comm_hook(None, counting)


def main(folder: Path, how: str) -> None:
    settings = Updates(3, clip_norm=1.0), Updates(2, clip_value=0.5)
    gan = (DistributedShared if how.endswith("shared") else Distributed)(*settings)
    strategy = DDPStrategy(
        process_group_backend="gloo", bucket_cap_mb=1e-4, gradient_as_bucket_view=how.endswith("view")
    )
    callbacks = [Whole()] if how.startswith("whole") else []
    trainer = quiet_trainer(
        folder, devices=2, strategy=strategy, use_distributed_sampler=False, max_epochs=2, callbacks=callbacks
    )
    trainer.fit(gan)
    windows = {name: player.steps for name, player in gan.updates.items()}
    own = {name: sum(p.nbytes for p in player.parameters) for name, player in gan.updates.items()}
    done = {"weights": weights(gan), "bytes": sent or gan._own_gradients.bytes_sent, "windows": windows, "own": own}
    torch.save(done, folder / f"{how}{trainer.global_rank}.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
