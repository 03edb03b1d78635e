"""The GAN in docs/examples: it is short, it runs, its score is what it says, and the techniques make it better."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from statistics import mean
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.image import imread
from scipy.linalg import sqrtm
from support import ROOT

PATH = ROOT / "docs" / "examples" / "digits.py"


@pytest.fixture(scope="module")
def digits() -> Any:
    spec = spec_from_file_location("digits", PATH)
    assert spec is not None
    assert spec.loader is not None
    spec.loader.exec_module(module := module_from_spec(spec))
    return module


def test_the_example_is_short() -> None:
    assert len(PATH.read_text().splitlines()) < 120


def test_its_comparison_runs(digits: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with torch.random.fork_rng():
        found = digits.compare(seeds=2, epochs=2, picture=str(tmp_path / "digits.png"))
    scores = torch.tensor(list(found.values()))
    assert scores.shape == (3 * 3, 2, 2)  # ways × weights, seeds, distance and share
    assert scores.isfinite().all()
    assert len(scores[..., 0].unique()) == 3 * 3 * 2  # each from weights of its own
    said = capsys.readouterr().out
    assert "updates of 2 micro-batches have 64 examples" in said
    assert said.count(" ± ") == 3 * 3 * 2
    assert imread(tmp_path / "digits.png").shape[:2] == (9 * 50, 10 * 50)


def test_its_distance_is_frechets(digits: Any) -> None:
    rng = np.random.default_rng(0)
    fake, real = rng.normal(size=(300, 64)), digits.HELD_OUT[0].double().numpy()
    covariances = np.cov(fake.T), np.cov(real.T)
    by_scipy = np.sum((fake.mean(0) - real.mean(0)) ** 2) + sum(map(np.trace, covariances))
    by_scipy -= 2 * np.trace(sqrtm(covariances[0] @ covariances[1])).real

    def score(images: np.ndarray) -> float:
        return float(digits.distance(SimpleNamespace(generate=lambda _: torch.from_numpy(images)), digits.HELD_OUT))

    assert score(fake) == pytest.approx(by_scipy, rel=1e-4)
    assert score(real) == pytest.approx(0, abs=1e-4)
    assert score(digits.TRAIN[0].numpy()) == pytest.approx(0.29, abs=0.005)


def test_its_reader_reads_real_digits(digits: Any) -> None:
    assert digits.READER.score(*digits.HELD_OUT) == pytest.approx(0.988, abs=0.005)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_techniques_make_it_better_with_every_seed(digits: Any, tmp_path: Path) -> None:
    found = digits.compare(seeds=2, picture=str(tmp_path / "digits.png"))
    distances = {key: [far for far, _ in scores] for key, scores in found.items()}
    shares = {key: mean(share for _, share in scores) for key, scores in found.items()}
    best, without = distances["rates, windows, clipping", "EMA"], distances["without", "raw"]
    assert max(best) < 0.6 * min(without)
    assert shares["rates, windows, clipping", "EMA"] > shares["without", "raw"] + 20
    for way in ("rates found", "rates, windows, clipping"):
        assert all(ema < raw for ema, raw in zip(distances[way, "EMA"], distances[way, "raw"], strict=True)), way
