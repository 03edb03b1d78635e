"""The vocoder that the repository ships."""

import math
from pathlib import Path

import pytest
import soundfile as sf
import torch
import yaml
from support import ROOT
from support.pages import blocks, run, script

from univnet import Vocoder
from univnet.audio.io import audio_length, read_segment
from univnet.metrics import METRICS
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator
from univnet.weights.sources import read_weights

HELD_OUT = (ROOT / "data" / "pretrained" / "held_out.txt").read_text().split()


def test_it_speaks_what_it_never_heard_better_than_noise_and_small() -> None:
    """On the demo's shortest held-out recording; the bounds are twice as wide as what the model card tells."""
    vocoder = Vocoder.from_pretrained("demo")
    rate = vocoder.sample_rate
    recordings = [path for path in (ROOT / "data" / "demo").glob("*.flac") if path.name in HELD_OUT]
    assert len(recordings) == 4
    shortest = min(recordings, key=lambda path: audio_length(path, rate))
    real = read_segment(shortest, 0, audio_length(shortest, rate), rate)[None]
    fake = vocoder(vocoder.mel(real))[..., : real.shape[-1]]
    real = real[..., : fake.shape[-1]]
    assert METRICS["mstft"](fake[0, 0].numpy(), real[0, 0].numpy(), rate) < 1.2
    assert METRICS["mel_l1"](fake[0, 0].numpy(), real[0, 0].numpy(), rate) < 0.6


def test_training_can_go_on_against_its_discriminators(mel: torch.Tensor) -> None:
    weights = read_weights(ROOT / "data" / "pretrained", "auto")
    config = yaml.safe_load((ROOT / "configs" / "pretrained.yaml").read_text())["model"]["discriminator"]["init_args"]
    fresh = Discriminator(
        MultiResolutionSpectrogramDiscriminator(**config["mrd"]["init_args"]),
        MultiPeriodDiscriminator(**config["mpd"]["init_args"]),
    )
    judge = weights.build_discriminator()
    assert judge.state_dict().keys() == fresh.state_dict().keys()
    real = read_segment(ROOT / "data" / "demo" / "ru_0222.flac", 8000, 15872, 16000)[None]
    fake = Vocoder.from_pretrained("demo")(mel)[..., : real.shape[-1]]
    told = {name: judge(audio) for name, audio in (("real", real), ("fake", fake))}
    right = [told["real"][part].mean() > told["fake"][part].mean() for part in judge.parts()]
    assert sum(right) >= len(right) - 1  # fresh ones would be right in half of the cases


def test_it_is_small_and_its_licence_lies_beside_it() -> None:
    folder = ROOT / "data" / "pretrained"
    assert sum(file.stat().st_size for file in folder.glob("*.safetensors")) <= 8_000_000
    assert "festvox-ru" in (folder / "LICENSE.txt").read_text()
    assert len(HELD_OUT) == 24


def test_the_cards_block_runs(mel: torch.Tensor) -> None:
    names = {"mel": mel}
    [block] = blocks("data/pretrained/README.md")
    run(block, names)
    assert names["audio"].shape == (1, 1, mel.shape[2] * 256)
    assert names["mel"].shape == mel.shape


@pytest.fixture
def mel() -> torch.Tensor:
    """Of a second of speech that the model never heard."""
    audio = read_segment(ROOT / "data" / "demo" / "ru_0222.flac", 8000, 16000, 16000)
    return Vocoder.from_pretrained("demo").mel(audio[None])


@pytest.mark.parametrize(("dtype", "below"), [(torch.bfloat16, 30), (torch.float16, 45)])
def test_in_half_precision_it_says_the_same(dtype: torch.dtype, below: int, mel: torch.Tensor) -> None:
    """Which needs the same noise: torch draws other numbers in another type."""
    vocoder = Vocoder.from_pretrained("demo")
    expected = vocoder(mel)
    audio = vocoder.to(dtype)(mel)
    assert audio.dtype == dtype
    energy = expected.square().sum() / (audio.float() - expected).square().sum()
    assert 10 * math.log10(energy) > below
    streamed = torch.cat(list(vocoder.stream(mel.split(7, 2))), 2)
    torch.testing.assert_close(streamed, audio, rtol=0, atol=0.02)
    with torch.autocast("cpu", dtype):
        audio = Vocoder.from_pretrained("demo")(mel)
    energy = expected.square().sum() / (audio.float() - expected).square().sum()
    assert 10 * math.log10(energy) > below


def test_the_comparison_of_precisions_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = script("low_precision", monkeypatch)
    audio, rate = sf.read(ROOT / "data" / "demo" / "ru_0222.flac")
    sf.write(tmp_path / "ru_0222.flac", audio[8000:24000], rate)
    sf.write(tmp_path / "ru_0014.flac", audio, rate)  # this one it was trained on
    page.main(ROOT / "data" / "pretrained", tmp_path)
    table = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in table[2:]] == ["float32", "bfloat16", "float16"]
    assert "| none | 0 |" in table[2]
    below = [float(line.split("|")[2].strip(" -dB")) for line in table[3:]]
    assert 30 < below[0] < below[1] < 80
