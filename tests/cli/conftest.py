"""One run of the command line that several test files share, and how the command line refuses."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from support.runs import ACCUMULATE, CLIPS, TRAIN, events
from support.small import write_config

from univnet.cli import main


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    return write_config(tmp_path_factory.mktemp("cli"), CLIPS, demo)


@pytest.fixture(scope="session")
def trained(config: Path) -> SimpleNamespace:
    """A run of seven generator updates in a process of its own: two epochs and a third, ended within it."""
    command = [*TRAIN, "fit", "--config", str(config), *ACCUMULATE, "--trainer.max_steps", "7"]
    command += ["--checkpoint_every.every_n_train_steps", "3"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    folder = config.parent / "runs" / "small" / "version_0"
    return SimpleNamespace(
        folder=folder, out=ended.stdout, err=ended.stderr, checkpoints=folder / "checkpoints", events=events(folder)
    )


@pytest.fixture
def refused(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command line, which must end in one line on stderr and status 2; return that line."""

    def run(*argv: Any) -> str:
        with pytest.raises(SystemExit) as ended:
            main([str(arg) for arg in argv])
        err = [line for line in capsys.readouterr().err.splitlines() if not line.startswith(("Seed", "GPU"))]
        assert ended.value.code == 2
        errors = [line for line in err if line.startswith("univnet: error: ")]
        assert len(errors) == 1, err
        assert err[-1] == errors[0]
        assert not any("Traceback" in line for line in err)
        assert len(errors[0]) < 800
        return errors[0].removeprefix("univnet: error: ")

    return run


@pytest.fixture(scope="session")
def speech_file(demo: Path) -> Path:
    return sorted(demo.glob("*.flac"))[0]
