"""What two ranks send at a window's close is the player's own gradients, and the weights are as with all of them."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from support import PROGRAMS
from support.all_reduce_run import KINDS
from torch.distributed.algorithms.ddp_comm_hooks.default_hooks import allreduce_hook
from torch.nn.parallel import DistributedDataParallel

from univnet.gan.play.all_reduce import OwnGradients


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    """What each rank found in each way, by its file's name."""
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, PROGRAMS / "all_reduce_run.py", folder]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return {path.stem: torch.load(path, weights_only=True) for path in folder.glob("*.pt")}


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_the_same_and_bytes_are_the_players_own(kind: str, two_ranks: dict[str, dict[str, Any]]) -> None:
    own, other, whole = (two_ranks[f"{kind}, {way}"] for way in ("own, 0", "own, 1", "whole, 0"))
    assert torch.equal(own["weights"], other["weights"])
    torch.testing.assert_close(own["weights"], whole["weights"], rtol=1e-12, atol=1e-14)
    windows, sizes = own["windows"], own["own"]
    assert windows == whole["windows"]
    assert whole["bytes"] == sum(windows.values()) * sum(sizes.values())
    assert own["bytes"] == other["bytes"] == sum(windows[name] * sizes[name] for name in sizes)


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("users", [True, False])
def test_a_hook_of_the_users_is_kept(users: bool) -> None:
    model, own = DistributedDataParallel(torch.nn.Linear(2, 3)), OwnGradients()
    if users:
        model.register_comm_hook(None, allreduce_hook)
    own.register(model)
    own.register(model.module)  # a strategy without DDP
    model(torch.ones(1, 2)).sum().backward()
    assert own.bytes_sent == (0 if users else 4 * 9)
    torch.testing.assert_close(model.module.weight.grad, torch.ones(3, 2))


class Bucket:
    """Two networks' parameters on the border, as DDP lays them out."""

    def __init__(self, parameters: list[torch.nn.Parameter]) -> None:
        self._parameters = parameters

    def parameters(self) -> list[torch.nn.Parameter]:
        return self._parameters

    def buffer(self) -> torch.Tensor:
        return torch.zeros(sum(p.numel() for p in self._parameters))


def test_of_a_bucket_on_the_border_one_part_is_sent() -> None:
    sizes = [torch.nn.Parameter(torch.zeros(size)) for size in (3, 4, 5)]
    hook, bucket = OwnGradients(), Bucket(sizes)
    for own, expected in (
        (sizes[:1], (0, 3)),
        (sizes[1:], (3, 12)),
        (sizes[1:2], (3, 7)),
        ([], (0, 0)),
        (sizes, (0, 12)),
    ):
        with hook.of(own):
            assert hook._range(bucket) == expected  # type: ignore[arg-type]
    assert hook._range(bucket) == (0, 12)  # type: ignore[arg-type] # outside a turn
    with hook.of([]):
        assert torch.equal(hook.reduced(bucket).wait(), torch.zeros(12))  # type: ignore[arg-type]
