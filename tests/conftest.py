"""Fixtures that several test folders share."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from support.small import MEL

import univnet
from univnet import LogMelSpectrogram
from univnet.runtime import keep_freed_memory

# A shell starts background jobs with Ctrl-C ignored, and children inherit that: the tests of it would wait for ever.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What tests start imports the package that they import, and tests/support, whatever is installed besides. For the
# whole session: fixtures of a wider scope start programs, too, and so do workers of pytest-xdist.
HERE = [str(Path(univnet.__file__).parents[1]), str(Path(__file__).parent)]
os.environ["PYTHONPATH"] = os.pathsep.join(
    dict.fromkeys([*HERE, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))])
)


@pytest.fixture(autouse=True)
def environment() -> Iterator[None]:
    """Keep what a test does to the environment, such as Lightning's variables for distributed runs, from the next."""
    with mock.patch.dict(os.environ):
        yield
    keep_freed_memory(False)  # what training's verbs keep would hide later tests' peaks of memory


@pytest.fixture(scope="session")
def demo() -> Path:
    """The folder of real speech that ships with the repository: 16 kHz FLAC and manifest.tsv."""
    return Path(__file__).parents[1] / "data" / "demo"


@pytest.fixture(scope="session")
def speech(demo: Path) -> np.ndarray:
    """One real utterance, float32 at 16 kHz."""
    sf = pytest.importorskip("soundfile")  # a lent GPU machine may have none
    return sf.read(sorted(demo.glob("*.flac"))[0], dtype="float32")[0]


@pytest.fixture
def batches(speech: np.ndarray) -> list[dict[str, torch.Tensor]]:
    """Four micro-batches of two consecutive pieces of real speech, for ``small_univnet``."""
    audio = torch.from_numpy(speech[8000 : 8000 + 8 * 2048]).reshape(4, 2, 1, 2048)
    return [{"audio": pieces, "mel": LogMelSpectrogram(**MEL)(pieces)} for pieces in audio]


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """`make_audio("a/b.wav", samples=16000, rate=16000, channels=1, seed=0)` writes coloured noise, gives the path."""

    sf = pytest.importorskip("soundfile")

    def make(name: str, samples: int = 16000, rate: int = 16000, channels: int = 1, seed: int = 0) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = np.random.default_rng(seed).normal(0, 0.05, (samples + 3, channels))
        sf.write(path, noise[:-3] + noise[1:-2] + noise[2:-1] + noise[3:], rate)
        return path

    return make
