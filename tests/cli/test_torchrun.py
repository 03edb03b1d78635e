"""``torchrun`` starts ranks, some are killed, and the run goes on by itself: on one machine, and on two (loopback)."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest
from support.runs import TRAIN, load
from support.state import assert_same

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


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


def launched(nodes: int, config: Path, folder: Path, updates: int, restarts: int) -> list[subprocess.Popen[bytes]]:
    """Start an agent for each of ``nodes``, with two ranks in all, which train into ``folder``."""
    environment = {**os.environ, "ENDURANCE": str(folder), "GLOO_SOCKET_IFNAME": "lo"}
    launch = ["--standalone", f"--nproc-per-node={2 // nodes}"]
    if nodes == 2:
        environment["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
        launch = ["--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d", "--rdzv-endpoint=127.0.0.1:29519"]
        launch += ["--local-addr=127.0.0.1"]
    command = [sys.executable, "-m", "torch.distributed.run", *launch, f"--max-restarts={restarts}", TRAIN[1], "fit"]
    command += ["--config", str(config), "--trainer.strategy", "ddp", "--trainer.num_nodes", str(nodes)]
    command += ["--trainer.devices", str(2 // nodes), "--trainer.max_steps", str(updates), "--ckpt_path", "auto"]
    command += ["--checkpoint_last.every_n_train_steps", "2", "--trainer.val_check_interval", "20"]
    command += ["--trainer.logger.init_args.save_dir", str(folder)]
    folder.mkdir()
    said = [(folder / f"said{node}.txt").open("w") for node in range(nodes)]
    return [subprocess.Popen(command, env=environment, stdout=file, stderr=file) for file in said]


def ended(agents: list[subprocess.Popen[bytes]], folder: Path, seconds: float) -> list[int]:
    """Return the agents' exit statuses; none of what they started is left."""
    try:
        return [agent.wait(seconds) for agent in agents]
    finally:
        for agent in agents:
            agent.kill()
        for process, has in ranks():
            if f"ENDURANCE={folder}" in has:
                os.kill(process, signal.SIGKILL)


def kill_a_rank(folder: Path, draw: Random) -> float:
    """Kill one at random, soon after the next checkpoint; return how long the other one outlived it."""
    last, begun = folder / "small" / "version_0" / "checkpoints" / "last.ckpt", time.time()
    wait_for(lambda: last.exists() and last.stat().st_mtime > begun)
    time.sleep(0.3 * draw.random())
    alive = [process for process, has in ranks() if f"ENDURANCE={folder}" in has and any("RANK=" in e for e in has)]
    os.kill(draw.choice(alive), signal.SIGKILL)
    struck = time.monotonic()
    wait_for(lambda: not {process for process, _ in ranks()} & {*alive})
    return time.monotonic() - struck


def wait_for(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.parametrize(("nodes", "kills", "updates"), [(1, 1, 40), (2, 20, 240)])
def test_ranks_that_are_killed_are_started_again_and_the_run_ends_as_without(
    nodes: int, kills: int, updates: int, config: Path, tmp_path: Path
) -> None:
    whole, run, draw = tmp_path / "whole", tmp_path / "run", Random(0)
    assert ended(launched(nodes, config, whole, updates, 0), whole, 400) == [0] * nodes
    agents = launched(nodes, config, run, updates, kills)
    try:
        outlived = [kill_a_rank(run, draw) for _ in range(kills)]
    finally:
        statuses = ended(agents, run, 900)
    print(f"{kills} kills; the other rank was gone after at most {max(outlived):.1f} s")
    assert statuses == [0] * nodes
    told = (run / "said0.txt").read_text()
    assert told.count("Restored all states from the checkpoint") >= kills
    assert [path.name for path in (run / "small").iterdir()] == ["version_0"]
    left, wanted = (load(each / "small" / "version_0" / "checkpoints" / "last.ckpt") for each in (run, whole))
    assert left["global_step"] == updates
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "global_step", "epoch"):
        assert_same(wanted[part], left[part], part)
