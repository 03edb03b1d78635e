"""What two ranks send at a window's close is the player's own gradients, and the weights are as with all of them."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import PROGRAMS

from univnet.gan.all_reduce import OwnGradients


def two_ranks(folder: Path, how: str) -> list[dict[str, Any]]:
    command = [sys.executable, PROGRAMS / "all_reduce_run.py", folder, how]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"{how}{rank}.pt", weights_only=True) for rank in range(2)]


@pytest.mark.parametrize("kind", ["", "-view", "-shared"])
def test_weights_are_the_same_and_bytes_are_the_players_own(kind: str, tmp_path: Path) -> None:
    own, whole = two_ranks(tmp_path, f"own{kind}"), two_ranks(tmp_path, f"whole{kind}")
    assert torch.equal(own[0]["weights"], own[1]["weights"])
    torch.testing.assert_close(own[0]["weights"], whole[0]["weights"], rtol=1e-12, atol=1e-14)
    windows, sizes = own[0]["windows"], own[0]["own"]
    assert windows == whole[0]["windows"]
    assert whole[0]["bytes"] == sum(windows.values()) * sum(sizes.values())
    assert own[0]["bytes"] == sum(windows[name] * sizes[name] for name in sizes)


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
