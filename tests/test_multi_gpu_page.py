"""What docs/multi_gpu.md tells people to type: options that exist, and numbers that agree."""

import re
import shlex
from pathlib import Path

import pytest

from univnet.cli import main

ROOT = Path(__file__).parents[1]
BLOCKS = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "multi_gpu.md").read_text(), re.DOTALL)


def options(block: str) -> list[str]:
    """Return the arguments of ``fit``, without what runs beside it."""
    [line] = [line for line in block.replace("\\\n", "").splitlines() if " fit " in line]
    return shlex.split(line.partition(" fit ")[2].rstrip(" &"))


def test_there_is_one_machine_several_loopback_and_slurm() -> None:
    assert ["torchrun" in block for block in BLOCKS] == [False, True, True, False]


@pytest.mark.parametrize("block", BLOCKS)
def test_fit_takes_the_options(block: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit) as left:
        main(["fit", *options(block), "--print_config"])
    assert not left.value.code
    assert "strategy: ddp" in capsys.readouterr().out


@pytest.mark.parametrize("block", BLOCKS[1:])
def test_ranks_and_machines_are_as_many_as_the_launcher_starts(block: str) -> None:
    numbers = dict(re.findall(r"--([\w.-]+)[= ](\d+)", block))
    ranks = numbers.get("nproc-per-node") or numbers["ntasks-per-node"]
    machines = numbers.get("nnodes") or numbers["nodes"]
    assert numbers["trainer.devices"] == ranks
    assert numbers["trainer.num_nodes"] == machines
    assert numbers.get("gpus-per-node", ranks) == ranks
