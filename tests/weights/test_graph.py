"""Exported graphs against the vocoder itself, over several batch sizes and lengths."""

import json
import sys
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from support.small import MEL

from univnet import Generator, LogMelSpectrogram, Vocoder
from univnet.models.streaming import EDGE_FRAMES, FrameNoise
from univnet.weights.graph import write_onnx, write_program

SHAPES = [(1, 1), (1, 50), (3, 7), (2, 130)]


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    torch.manual_seed(0)
    generator = Generator(20, 4, 4, strides=(16, 16), dilations=(3,), predictor_channels=8, predictor_blocks=1)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return Vocoder(generator, LogMelSpectrogram(**MEL))


def inputs(batch: int, frames: int) -> tuple[torch.Tensor, torch.Tensor]:
    mel = torch.randn(batch, 20, frames, generator=torch.Generator().manual_seed(frames)) * 2 - 5
    return mel, FrameNoise(batch, 4, 0, torch.float32, "cpu").take(frames + 2 * EDGE_FRAMES)


def test_onnxruntime_says_the_same(vocoder: Vocoder, tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "vocoder.onnx", vocoder)
    assert [each.name for each in tmp_path.iterdir()] == ["vocoder.onnx"]
    onnx.checker.check_model(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, frames in SHAPES:
        mel, noise = inputs(batch, frames)
        (audio,) = session.run(["audio"], {"mel": mel.numpy(), "noise": noise.numpy()})
        expected = vocoder(mel, seed=0)
        assert expected.std() > 1e-2
        torch.testing.assert_close(torch.from_numpy(audio), expected, rtol=0, atol=1e-4)
    told = {each.key: json.loads(each.value) for each in onnx.load(str(path)).metadata_props}
    assert told["sample_rate"] == 16000
    assert told["noise_frames_more"] == 20
    assert LogMelSpectrogram(**told["mel"]).config == vocoder.mel.config


@pytest.mark.slow  # the exporter takes half a minute for the paper's sizes
def test_onnxruntime_says_the_same_for_c16(tmp_path: Path) -> None:
    torch.manual_seed(0)
    whole = Vocoder(Generator(channels=16), LogMelSpectrogram())
    path = write_onnx(tmp_path / "c16.onnx", whole)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    for batch, frames in SHAPES:
        mel = torch.randn(batch, 100, frames)
        noise = FrameNoise(batch, 64, 0, torch.float32, "cpu").take(frames + 2 * EDGE_FRAMES)
        (audio,) = session.run(["audio"], {"mel": mel.numpy(), "noise": noise.numpy()})
        torch.testing.assert_close(torch.from_numpy(audio), whole(mel), rtol=0, atol=1e-4)


def test_an_exported_program_says_the_same(vocoder: Vocoder, tmp_path: Path) -> None:
    about: dict[str, Any] = {"univnet.json": ""}
    program = torch.export.load(write_program(tmp_path / "vocoder.pt2", vocoder), extra_files=about).module()
    for batch, frames in SHAPES:
        mel, noise = inputs(batch, frames)
        torch.testing.assert_close(program(mel, noise), vocoder(mel, seed=0), rtol=0, atol=1e-5)
    assert json.loads(about["univnet.json"])["hop_length"] == 256
    assert [each.name for each in tmp_path.iterdir()] == ["vocoder.pt2"]


def test_without_onnx_it_is_said_how_to_get_it(
    vocoder: Vocoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"needs onnx and onnxscript: pip install 'univnet\[onnx\]'"):
        write_onnx(tmp_path / "x.onnx", vocoder)
    assert not list(tmp_path.iterdir())
