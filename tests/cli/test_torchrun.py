"""``torchrun`` starts ranks, one is killed, and the run goes on by itself: on one machine, and on two (loopback)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.runs import TRAIN, load

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
UPDATES = 40


def ranks() -> Iterator[tuple[int, list[str]]]:
    """Yield the processes that run training, with their environment."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text().split("\0")
            environment = (folder / "environ").read_text().split("\0")
        except OSError:
            continue
        if TRAIN[1] in command and "torch.distributed.run" not in command:
            yield int(folder.name), environment


@pytest.mark.parametrize("nodes", [1, 2])
def test_a_rank_that_is_killed_is_started_again_and_the_run_goes_on(nodes: int, config: Path, tmp_path: Path) -> None:
    mark = f"ENDURANCE={tmp_path}"
    environment = {**os.environ, "ENDURANCE": str(tmp_path), "GLOO_SOCKET_IFNAME": "lo"}
    launch = ["--standalone", f"--nproc-per-node={2 // nodes}"]
    if nodes == 2:
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        launch = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29519"]
        launch += ["--local-addr=127.0.0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *launch, "--max-restarts=3", TRAIN[1], "fit"]
    command += ["--config", str(config), "--trainer.strategy", "ddp", "--trainer.num_nodes", str(nodes)]
    command += ["--trainer.devices", str(2 // nodes), "--trainer.max_steps", str(UPDATES), "--ckpt_path", "auto"]
    command += ["--checkpoint_last.every_n_train_steps", "2", "--trainer.logger.init_args.save_dir", str(tmp_path)]
    said = [(tmp_path / f"said{node}.txt").open("w") for node in range(nodes)]
    agents = [subprocess.Popen(command, env=environment, stdout=file, stderr=file) for file in said]
    try:
        last = tmp_path / "small" / "version_0" / "checkpoints" / "last.ckpt"
        until = time.monotonic() + 120
        while not last.exists():
            assert time.monotonic() < until
            time.sleep(0.1)
        (victim,) = [process for process, has in ranks() if {mark, "RANK=1"} <= {*has}]
        os.kill(victim, signal.SIGKILL)
        assert [agent.wait(200) for agent in agents] == [0] * nodes
    finally:
        for agent in agents:
            agent.kill()
        for process, has in ranks():
            if mark in has:
                os.kill(process, signal.SIGKILL)
    told = (tmp_path / "said0.txt").read_text()
    assert "Restored all states from the checkpoint" in told
    assert load(last)["global_step"] == UPDATES
    assert [path.name for path in (tmp_path / "small").iterdir()] == ["version_0"]
