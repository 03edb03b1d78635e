"""The vocoder that the repository ships."""

from pathlib import Path

from univnet import Vocoder
from univnet.audio.io import audio_length, read_segment
from univnet.metrics import METRICS

ROOT = Path(__file__).parents[1]
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


def test_it_is_small_and_its_licence_lies_beside_it() -> None:
    folder = ROOT / "data" / "pretrained"
    assert (folder / "model.safetensors").stat().st_size <= 8_000_000
    assert "festvox-ru" in (folder / "LICENSE.txt").read_text()
    assert len(HELD_OUT) == 24
