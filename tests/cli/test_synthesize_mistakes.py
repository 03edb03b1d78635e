"""``univnet synthesize`` as its users meet it, and checkpoints that are none."""

import pickle
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch

from univnet.cli import main

BEGINNINGS = {"flac": b"fLaC", "png": b"\x89PNG", "wav": b"RIFF", "script": b"c"}  # of files that are no checkpoints


class Malice:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def damaged(kind: str, folder: Path, good: Path) -> Path:
    path = folder / f"{kind}.ckpt"
    if kind == "malicious":
        torch.save({"state_dict": {}, "univnet": Malice(folder / "executed")}, path)
    elif kind == "pickle":
        path.write_bytes(pickle.dumps(Malice(folder / "executed"), protocol=2))
    elif kind == "truncated":
        path.write_bytes(good.read_bytes()[:-1000])
    elif kind == "text":
        path.write_text("not a checkpoint")
    elif kind in BEGINNINGS:
        path.write_bytes(BEGINNINGS[kind] + bytes(range(256)) * 20)
    elif kind == "empty":
        path.touch()
    else:
        torch.save({"state_dict": {"weight": torch.ones(2)}}, path)
    return path


@pytest.mark.parametrize("kind", ["malicious", "pickle", "truncated", "text", "empty", "foreign", *BEGINNINGS])
def test_what_is_no_checkpoint_is_refused_and_never_run(
    kind: str, refused: Callable[..., str], trained: SimpleNamespace, config: Path, tmp_path: Path, speech_file: Path
) -> None:
    path = damaged(kind, tmp_path, trained.checkpoints / "last.ckpt")
    told = refused("synthesize", "--checkpoint", path, "--output", tmp_path / "out", speech_file)
    assert str(path) in told
    assert "give a" in told or "not a checkpoint that univnet's training wrote" in told
    if kind in ("malicious", "truncated"):
        assert refused("fit", "--config", config, "--ckpt_path", path) == told
    assert ("holds code" in told) == (kind in ("malicious", "pickle"))
    if kind in ("text", "empty", *BEGINNINGS):
        assert told == f"{path} is no checkpoint: give a file of weights, such as training's .ckpt"
        assert refused("fit", "--config", config, "--init_from", path) == told
    assert not (tmp_path / "executed").exists()


class TestSynthesize:
    def test_one_wav_an_input(self, trained: SimpleNamespace, tmp_path: Path, speech_file: Path) -> None:
        mel = tmp_path / "mel.npy"
        np.save(mel, np.full((20, 30), -5.0, dtype=np.float32))
        argv = ["synthesize", "--checkpoint", trained.checkpoints / "best.ckpt", "--output", tmp_path / "out"]
        main([str(arg) for arg in [*argv, "--pictures", speech_file, mel]])
        lengths = {path.name: sf.info(path).frames for path in (tmp_path / "out").glob("*.wav")}
        assert lengths == {f"{speech_file.stem}.wav": sf.info(speech_file).frames // 256 * 256, "mel.wav": 30 * 256}
        assert {path.stem for path in (tmp_path / "out").glob("*.png")} == {speech_file.stem, "mel"}

    @pytest.mark.parametrize(
        ("inputs", "options", "told"),
        [
            (["nowhere.wav"], [], "there is no file nowhere.wav"),
            (["a/x.wav", "b/x.wav"], [], "would both be written to"),
            (["a/x.wav"], ["--output", "a"], "would be overwritten: give another --output folder"),
            (["a/x.wav"], ["--output", "a/x.wav"], "is a file: name a folder"),
            (["a/x.wav"], ["--device", "abacus"], "--device abacus cannot be used here"),
            (
                ["a/x.wav"],
                ["--sed", "1"],
                "unrecognized arguments: --sed (did you mean --seed?); see `univnet synthesize --help`",
            ),
            (["empty.wav"], [], "empty.wav holds no sound"),
            (["nan.wav"], [], "nan.wav holds NaN or infinity"),
            (["text.wav"], [], "text.wav is not readable audio"),
            (["text.npy"], [], "text.npy is not a readable .npy file"),
            (["bands.npy"], [], "bands.npy has shape (80, 3); this vocoder takes (20, frames)"),
            (["words.npy"], [], "words.npy does not hold floating-point numbers"),
            ([], [], "the following arguments are required: inputs"),
        ],
    )
    def test_mistakes(
        self,
        refused: Callable[..., str],
        trained: SimpleNamespace,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        inputs: list[str],
        options: list[str],
        told: str,
    ) -> None:
        monkeypatch.chdir(tmp_path)
        for name in ("a/x.wav", "b/x.wav"):
            Path(name).parent.mkdir()
            sf.write(name, np.random.default_rng(0).normal(0, 0.1, 4000), 16000)
        sf.write("empty.wav", np.zeros(0), 16000)
        sf.write("nan.wav", np.full(4000, np.nan), 16000, subtype="FLOAT")
        for name in ("text.wav", "text.npy"):
            Path(name).write_text("neither sound nor numbers")
        np.save("bands.npy", np.zeros((80, 3), dtype=np.float32))
        np.save("words.npy", np.array([["a"]]))
        original = Path("a/x.wav").read_bytes()
        argv = ["--checkpoint", trained.checkpoints / "best.ckpt", "--output", "out", *options, *inputs]
        assert told in refused("synthesize", *argv)
        assert Path("a/x.wav").read_bytes() == original
        assert not list(Path("out").glob("*.wav")) if Path("out").exists() else True
