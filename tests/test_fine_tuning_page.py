"""The blocks of docs/fine_tuning.md, run in their order on a small model; and docs/fine_tuning.py, at a tiny size."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from support import ROOT
from support.checkpoints import save, small_univnet
from support.pages import blocks, run, script, text
from support.small import write_config

from univnet import Vocoder
from univnet.cli import main

PAGE = text("docs/fine_tuning.md")
LITTLE = {"find-lr": ["--num_training", "50", "--min_lr", "1e-4"]}


@pytest.fixture
def place(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, its overlay, a checkpoint and six recordings of two seconds."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 0, demo)
    (tmp_path / "finetune.yaml").write_text((ROOT / "configs" / "finetune.yaml").read_text())
    save(small_univnet(), tmp_path / "trained.ckpt")
    for path in sorted(demo.glob("*.flac"))[:6]:
        sf.write(tmp_path / "speech" / path.name, sf.read(path)[0][8000:40000], 16000)
    (tmp_path / "mels").mkdir()
    return tmp_path


def test_the_page_runs_and_is_short(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(PAGE.splitlines()) < 110
    vocoder, degraded = Vocoder.from_checkpoint("trained.ckpt"), script("fine_tuning", monkeypatch).degraded
    audio = {path.stem: torch.from_numpy(sf.read(path, dtype="float32")[0]) for path in place.glob("speech/*.flac")}

    def acoustic_model(name: str) -> np.ndarray:
        mel = degraded(vocoder.mel(audio[name][None, None])[0], 0).numpy()
        return mel[:, :-1] if name.endswith("46") else mel  # one is a frame short

    names: dict[str, Any] = {"np": np, "Path": Path, "recordings": sorted(audio), "acoustic_model": acoustic_model}
    names |= {"vocoder": vocoder, "audio": audio[sorted(audio)[-1]][None, None]}
    for block in blocks("docs/fine_tuning.md", "sh", "python"):
        run(block, names, LITTLE)
    difference = float(capsys.readouterr().out.splitlines()[0])
    assert 0.05 < difference < 1
    assert list(place.glob("runs/small/*/checkpoints/last.ckpt"))


def test_a_mel_that_is_too_far_off_is_refused_by_name(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [first, *_] = sorted(place.glob("speech/*.flac"))
    for frames, status in ((123, 0), (127, 0), (122, 2), (128, 2)):
        np.save("mels/a.npy", np.full((20, frames), -5.0, np.float32))
        Path("train.tsv").write_text(f"path\tmel\nspeech/{first.name}\tmels/a.npy\n")
        options = ["--data.root", "null", "--data.manifest", "train.tsv", "--data.validation", "0"]
        overlays = ["--config", "small.yaml", "--config", "finetune.yaml", "--trainer.max_steps", "0"]
        argv = ["fit", *overlays, *options, "--init_from", "trained.ckpt", "--trainer.val_check_interval", "null"]
        if not status:
            main(argv)
            continue
        with pytest.raises(SystemExit) as ended:
            main(argv)
        assert ended.value.code == status
        said = capsys.readouterr().err
        assert f"mels/a.npy has the shape (20, {frames})" in said
        assert "needs (20, 125)" in said


def test_degraded_mels_are_smooth_and_noisy(monkeypatch: pytest.MonkeyPatch) -> None:
    page = script("fine_tuning", monkeypatch)
    torch_noise = torch.randn(60, 4000, generator=torch.Generator().manual_seed(0))
    page.NOISE = 0.0
    smooth = page.degraded(torch_noise, 0)
    assert torch.allclose(page.degraded(torch.full((8, 9), -3.0), 0), torch.full((8, 9), -3.0), atol=1e-5)
    # White noise through a Gaussian of σ = 1 keeps 1 / √(2 √π) of its deviation along each axis.
    expected = 1 / (2 * np.sqrt(np.pi))
    assert float(smooth[4:-4].std()) == pytest.approx(expected, rel=0.03)
    page.NOISE = 0.1
    assert float((page.degraded(torch_noise, 1) - smooth).std()) == pytest.approx(0.1, rel=0.02)


def test_the_proof_runs(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("pesq")
    page = script("fine_tuning", monkeypatch)
    monkeypatch.setattr(page, "SEEDS", (1, 2))
    options = [*page.OPTIONS, "--data.batch_size", "2", "--trainer.val_check_interval", "2"]
    monkeypatch.setattr(page, "OPTIONS", options)
    monkeypatch.setattr(page, "UPDATES", 2)
    recordings = [f"{path}\n" for path in sorted(place.glob("speech/*.flac"))]
    for name, some in (("train.tsv", recordings[:-2]), ("apart.tsv", recordings[-2:])):
        Path(name).write_text("path\n" + "".join(some))
    given = (Path("train.tsv"), Path("apart.tsv"), Path("proof"), Path("small.yaml"), Path("trained.ckpt"))
    found = page.main(*given)
    assert {name: len(many) for name, many in found.items()} == {"own mels": 1, "degraded": 1, "fine-tuned": 2}
    assert found["fine-tuned"][0] != found["fine-tuned"][1] != found["degraded"][0] != found["own mels"][0]
    capsys.readouterr()
    monkeypatch.setattr(page, "univnet", None)
    assert page.main(*given) == found  # nothing is done again
    assert re.search(r"\| way back \| -?\d+\.\d{3} ± \d+\.\d{3} \|", capsys.readouterr().out)
