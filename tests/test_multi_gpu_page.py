"""What docs/multi_gpu.md tells people to type: options that exist, and numbers that agree."""

import re

import pytest
from support import ROOT
from support.pages import blocks, commands

from univnet.cli import main

BLOCKS = [block.code for block in blocks("docs/multi_gpu.md", "sh")]


def options(block: str) -> list[str]:
    """Return the arguments of ``fit``, without what runs beside it."""
    [words] = [words for words in commands(block) if "fit" in words]
    return words[words.index("fit") + 1 :]


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
