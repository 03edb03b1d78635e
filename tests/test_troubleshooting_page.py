"""The blocks of docs/troubleshooting.md, run on a small model, and its script, at a tiny size."""

import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from support import pages
from support.checkpoints import save, small_univnet
from support.small import write_config

from univnet import Vocoder
from univnet.audio import MelFormat
from univnet.cli import main

PAGE = "troubleshooting.md"
TEXT = " ".join((pages.DOCS / PAGE).read_text().split())


@pytest.fixture
def place(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a configuration, a checkpoint, six recordings of two seconds, and a mel of each."""
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 0, demo)
    Path("finetune.yaml").write_text((pages.DOCS.parent / "configs" / "finetune.yaml").read_text())
    save(small_univnet(), tmp_path / "trained.ckpt")
    vocoder, lines = Vocoder.from_checkpoint("trained.ckpt"), []
    for path in sorted(demo.glob("*.flac"))[:6]:
        audio = sf.read(path, dtype="float32")[0][8000:40000]
        sf.write(tmp_path / "speech" / path.name, audio, 16000)
        np.save(f"{path.stem}.npy", vocoder.mel(torch.from_numpy(audio)[None, None])[0])
        lines.append(f"speech/{path.name}\t{path.stem}.npy")
    Path("train.tsv").write_text("\n".join(["path\tmel", *lines[:4]]))
    Path("validation.tsv").write_text("\n".join(["path\tmel", *lines[4:]]))
    return tmp_path


def test_its_pictures_and_links_exist_and_it_is_short() -> None:
    assert all((pages.DOCS / path).exists() for path in pages.links(PAGE))
    assert all(path.stat().st_size <= 60_000 for path in pages.pictures(PAGE))
    assert len((pages.DOCS / PAGE).read_text().splitlines()) < 200


def test_its_blocks_run(place: Path) -> None:
    vocoder = Vocoder.from_checkpoint("trained.ckpt")
    mel = torch.from_numpy(np.load(next(place.glob("ru_*.npy"))))[None]
    np.save("mel.npy", mel[0].numpy() / np.log(10))
    quick = {
        "find-lr": ["--num_training", "20", "--min_lr", "1e-4"],
        "find-batch-size": ["--max_val", "2"],
        "prepare": ["--workers", "0", "--quiet"],
    }
    names: dict[str, Any] = {"MelFormat": MelFormat, "vocoder": vocoder, "mel": mel / np.log(10)}
    for language, code in pages.blocks(PAGE):
        if language == "python":
            exec(code, names)
            continue
        for line in code.strip().splitlines():
            program, verb, *argv = shlex.split(line)
            assert program == "univnet"
            main([verb, *argv, *quick.get(verb, [])])
    torch.testing.assert_close(names["audio"], vocoder(mel), rtol=0, atol=1e-4)
    spoken = torch.from_numpy(sf.read("out/mel.wav", dtype="float32")[0])
    torch.testing.assert_close(spoken, names["audio"][0, 0], rtol=0, atol=1e-4)  # 16 bits
    steps = [torch.load(path, weights_only=True)["global_step"] for path in place.glob("runs/small/*/*/last.ckpt")]
    assert max(steps) == 10
    assert Path("prepared/train.tsv").exists()


@pytest.fixture
def tiny(place: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a small model and runs of a few updates."""
    script = pages.script("troubleshooting", monkeypatch)
    small = {"CONFIG": place / "small.yaml", "DATA": [], "PICTURES": place / "pictures"}
    for name, value in small.items():
        monkeypatch.setattr(script.small_runs, name, value)
    Vocoder.from_checkpoint("trained.ckpt").save_pretrained("published", {"data": "speech", "license": "mit"})
    settings = {"APART": script.APART[:1], "UPDATES": 4, "KEPT": 2, "SHORT": 2, "TUNING": []}
    settings |= {"PRETRAINED": Path("published"), "FORMAT": "univnet,sample_rate=16000,n_mels=20,log=log10"}
    for name, value in settings.items():
        monkeypatch.setattr(script, name, value)
    return script


def test_its_vocoders_are_measured_and_mels_are_converted(place: Path, tiny: ModuleType) -> None:
    pytest.importorskip("pesq")
    found = tiny.mels(Path("runs"))
    own, converted, unconverted = (found[name] for name in ("own mels", "--mel-format", "as they are"))
    assert own["M-STFT"] == pytest.approx(converted["M-STFT"], abs=0.003)
    assert own["M-STFT"] != pytest.approx(unconverted["M-STFT"], abs=0.003)
    assert own["PESQ"] == pytest.approx(converted["PESQ"], abs=0.05)  # of noise: rounding alone moves it by 0.012
    status, said = found["decibels"]
    quoted = "cannot be natural-log magnitudes, which lie between -11.5 and 3: they look like decibels"
    assert status == 2
    assert quoted in said
    assert quoted in TEXT


@pytest.mark.slow
def test_its_pictures_are_made_and_figures_are_measured(
    place: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("pesq")
    monkeypatch.setattr(tiny, "SYMPTOMS", tuple(each for each in tiny.SYMPTOMS if each is not tiny.memory))
    found = tiny.main(Path("runs"))
    shown = {path.name for path in pages.pictures(PAGE)} - {"memory.png"}
    assert {path.name for path in place.glob("pictures/*.png")} == shown
    assert found["resumed"]["largest difference"] == 0
    monkeypatch.setattr(tiny.small_runs, "univnet", None)
    kept = ("nonfinite", "discriminator", "loader")
    assert {name: getattr(tiny, name)(Path("runs")) for name in kept} == {name: found[name] for name in kept}


@pytest.mark.slow
def test_a_run_that_does_not_fit_ends_with_status_3_and_the_size_that_is_found_trains(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = pages.script("troubleshooting", monkeypatch)
    monkeypatch.setattr(script.small_runs, "PICTURES", tmp_path / "pictures")
    found = script.memory(tmp_path)
    assert found[f"at {found['size']}"][0] == 0
    status, said = found[f"at {16 * found['largest']}"]
    assert status == 3
    assert said.startswith("univnet: error: out of memory (")
    quoted = "lower data.batch_size (the verb find-batch-size finds what fits)"
    assert quoted in said
    assert quoted in TEXT


def test_a_hum_is_measured_in_decibels() -> None:
    seconds, noise = np.arange(64000) / 16000, np.random.default_rng(0).standard_normal(64000)
    comb = sum(np.cos(2 * np.pi * 62.5 * k * seconds + k * k) for k in range(1, 128))
    monkeypatch = pytest.MonkeyPatch()
    with monkeypatch.context() as patched:
        hum = pages.script("troubleshooting", patched).hum
    assert abs(hum(noise, 16000, 256)) < 0.5
    assert hum(noise + comb, 16000, 256) > 10
    assert abs(hum(noise + np.cos(2 * np.pi * 100 * seconds), 16000, 256)) < 0.5
