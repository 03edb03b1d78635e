"""Damaged and hostile configurations and checkpoints: read, or refused in one sentence; never a traceback."""

import resource
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from support.checkpoints import save, small_univnet
from support.mutations import COUNT, mutated
from support.small import write_config

from univnet import Vocoder
from univnet.cli import main


@pytest.fixture(autouse=True)
def _bounded_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB


def status_of(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str]:
    """Return the exit status, and what was said on stderr."""
    with pytest.raises(SystemExit) as ended:
        main(argv)
    return int(ended.value.code or 0), capsys.readouterr().err


def test_configurations(tmp_path: Path, demo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng, path = np.random.default_rng(0), tmp_path / "damaged.yaml"
    good = write_config(tmp_path, 1, demo).read_bytes()
    path.write_bytes(good)
    assert status_of(capsys, "fit", "--config", str(path), "--print_config") == (0, "")
    statuses = set()
    for _ in range(COUNT // 15):
        path.write_bytes(mutated(good, rng))
        status, said = status_of(capsys, "fit", "--config", str(path), "--print_config")
        assert len(said) < 3000
        assert status == 0 or said.startswith("univnet: error: ")
        statuses.add(status)
    assert statuses <= {0, 2}
    assert 2 in statuses


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("data: " + "[" * 3000 + "]" * 3000, "levels deep"),
        ("data: &d {root: *d}", "lead back to themselves"),
        ("a: &a [0, 0, 0, 0, 0, 0, 0, 0]\n" + "".join(
            f"{new}: &{new} [{', '.join(['*' + old] * 8)}]\n" for old, new in zip("abcdefgh", "bcdefghi", strict=True)
        ), "by its aliases"),
        ("#" * (2 << 20), "is larger than 1 MiB"),
        ("trainer: {max_steps: 0o99999999999999999999}", "damaged.yaml|max_steps"),
        ("data: {root: 2001-99-99}", "damaged.yaml|data.root"),
        ("!!python/object/apply:os.system ['touch executed']", "is not readable YAML"),
        ("data: {root: !!binary aGk=}", "data.root"),
    ],
    ids=["deep", "cyclic", "bomb", "large", "octal", "date", "code", "binary"],
)  # fmt: skip
def test_hostile_configurations(
    text: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "damaged.yaml"
    path.write_text(text)
    status, error = status_of(capsys, "fit", "--config", str(path))
    assert status == 2
    assert any(part in error for part in said.split("|"))
    assert len(error) < 3000
    assert not (tmp_path / "executed").exists()


def test_checkpoints(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is loaded with the very weights that it was written with, or refused."""
    rng, path = np.random.default_rng(0), tmp_path / "damaged.ckpt"
    data = save(small_univnet(), path).read_bytes()
    weights = Vocoder.from_checkpoint(path).state_dict()
    refused = 0
    for _ in range(COUNT // 5):
        path.write_bytes(mutated(data, rng))
        said, loaded = "", weights
        try:
            loaded = Vocoder.from_checkpoint(path).state_dict()
        except (ValueError, OSError) as error:
            said = str(error)
            refused += 1
        assert not said or (str(path) in said and len(said) < 2000)
        assert all(torch.equal(value, weights[name]) for name, value in loaded.items())
    assert refused > COUNT // 10
