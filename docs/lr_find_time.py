"""How long a 100-point range test takes against 100 updates of training: ``python docs/lr_find_time.py``.

On the demo's model and speech, in one process, in turns; the first turn warms up. Prints each turn's ratio.
"""

import copy
import statistics
import time

from univnet.cli.messages import plain_messages
from univnet.cli.training import TrainingCLI
from univnet.gan import Tuner

OPTIONS = ["--config", "configs/demo.yaml", "--model.discriminator_start", "0", "--data.batch_size", "4"]
OPTIONS += ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false", "--trainer.max_steps", "100"]
OPTIONS += ["--trainer.limit_val_batches", "0", "--trainer.enable_progress_bar", "false"]


def turn() -> tuple[float, float]:
    """Return the seconds that the test and the training take, each from the same start."""
    cli = TrainingCLI(args=OPTIONS, run=False)
    cli.datamodule.setup()
    twin = copy.deepcopy(cli.model)
    begun = time.perf_counter()
    Tuner(cli.trainer).lr_find(
        cli.model, datamodule=cli.datamodule, max_lr=1e-4, early_stop_threshold=None, update_attr=False
    )
    tested = time.perf_counter()
    cli.trainer.fit(twin, cli.datamodule)
    return tested - begun, time.perf_counter() - tested


def main() -> None:
    """Take turns."""
    ratios = []
    with plain_messages():
        for number in range(4):
            test, training = turn()
            print(f"turn {number}: test {test:.1f} s, training {training:.1f} s, ratio {test / training:.3f}")
            ratios.append(test / training)
    print(f"median ratio {statistics.median(ratios[1:]):.3f}")


if __name__ == "__main__":
    main()
