"""Audio from a mel that comes in pieces: that of the whole mel, as soon as it can be, in memory that does not grow."""

import gc
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from univnet import Generator, LogMelSpectrogram, Vocoder
from univnet.models.streaming import NOISE_FRAMES, FrameNoise, Stream

BANDS = 5
SIZES = {
    "n_mels": BANDS,
    "noise_channels": 3,
    "channels": 4,
    "predictor_channels": 4,
    "strides": (2, 2),
    "dilations": (1, 3),
}


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    torch.manual_seed(0)
    generator = Generator(**SIZES)
    with torch.no_grad():
        for parameter in generator.parameters():  # so that every input frame in reach is heard
            parameter.add_(0.1 * torch.randn_like(parameter))
    return Vocoder(generator, LogMelSpectrogram(sample_rate=8000, n_fft=16, hop_length=4, n_mels=BANDS))


def mel_of(frames: int, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, BANDS, frames, generator=torch.Generator().manual_seed(frames)) * 2 - 5


@settings(max_examples=20, deadline=None)
@given(data=st.data(), frames=st.integers(1, 400), batch=st.integers(1, 2), seed=st.integers(0, 3))
def test_any_chunks_make_the_audio_of_the_whole(
    vocoder: Vocoder, data: st.DataObject, frames: int, batch: int, seed: int
) -> None:
    mel = mel_of(frames, batch)
    cuts = sorted(data.draw(st.lists(st.integers(0, frames), max_size=12), label="cuts"))
    window = data.draw(st.integers(2 * vocoder.generator.context_frames + 1, 500), label="chunk_frames")
    chunks = [mel[..., a:b] for a, b in pairwise([0, *cuts, frames])]
    made = torch.cat(list(vocoder.stream(chunks, seed, window)), dim=2)
    whole = vocoder(mel, seed, chunk_frames=None)
    assert made.shape == whole.shape
    torch.testing.assert_close(made, whole, rtol=0, atol=1e-5)
    assert whole.std() > 1e-2


def test_frame_by_frame_each_comes_after_the_latency(vocoder: Vocoder) -> None:
    mel, stream = mel_of(60), vocoder.open_stream()
    pushed = [stream.push(mel[..., n : n + 1]).shape[2] for n in range(60)]
    latency = stream.latency_frames
    assert latency == vocoder.generator.context_frames == 16
    assert pushed == [0] * latency + [4] * (60 - latency)
    assert stream.flush().shape[2] == 4 * latency


def test_the_latency_is_what_the_audio_depends_on(vocoder: Vocoder) -> None:
    mel = mel_of(80)
    before = vocoder(mel)
    later = mel.clone()
    later[..., 40:] += 1
    changed = (vocoder(later) != before)[0, 0].nonzero().min().item() // 4  # the first frame that hears it
    assert 40 - vocoder.generator.context_frames <= changed < 40 - vocoder.generator.context_frames + 5


def test_the_stream_keeps_no_more_than_its_window(vocoder: Vocoder) -> None:
    sizes = []
    for frames in (500, 5000):
        stream = vocoder.open_stream(chunk_frames=100)
        for start in range(0, frames, 50):
            stream.push(mel_of(50) + start * 0)
        gc.collect()
        sizes.append(sum(t.untyped_storage().nbytes() for t in vars(stream).values() if isinstance(t, torch.Tensor)))
    assert sizes[0] == sizes[1] <= 4 * (BANDS + 3) * (100 + 2 * vocoder.generator.context_frames)


def test_what_does_not_fit_is_told(vocoder: Vocoder) -> None:
    assert list(vocoder.stream([])) == []
    with pytest.raises(ValueError, match=r"window_frames must be more than the overlap of 32 frames: 32"):
        vocoder.open_stream(chunk_frames=32)
    stream = vocoder.open_stream()
    with pytest.raises(ValueError, match=r"expected frames of shape \(batch, 5, frames\), got \(1, 4, 2\)"):
        stream.push(torch.zeros(1, 4, 2))
    stream.push(torch.zeros(1, BANDS, 2))
    with pytest.raises(ValueError, match=r"expected frames of shape \(1, 5, frames\), got \(2, 5, 2\)"):
        stream.push(torch.zeros(2, BANDS, 2))
    stream.flush()
    assert stream.flush().shape == (1, 1, 0)
    with pytest.raises(ValueError, match="has been flushed"):
        stream.push(torch.zeros(1, BANDS, 2))


def test_fresh_noise_differs_and_a_seed_does_not_touch_torchs_own(vocoder: Vocoder) -> None:
    mel, state = mel_of(40), torch.get_rng_state()
    assert torch.equal(*(torch.cat(list(vocoder.stream([mel])), 2) for _ in range(2)))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(*(torch.cat(list(vocoder.stream([mel], seed=None)), 2) for _ in range(2)))


@given(parts=st.lists(st.integers(0, 3 * NOISE_FRAMES), max_size=6))
@settings(max_examples=30, deadline=None)
def test_noise_is_the_same_however_it_is_taken(parts: list[int]) -> None:
    whole, piecewise = (FrameNoise(2, 3, 7, torch.float32, "cpu") for _ in range(2))
    taken = [piecewise.take(frames) for frames in parts]
    assert torch.equal(torch.cat([torch.empty(2, 3, 0), *taken], 2), whole.take(sum(parts)))


def test_a_stream_needs_nothing_but_a_generator() -> None:
    generator = Generator(**SIZES).eval()
    stream = Stream(generator, seed=0, edge_frames=0, silence=0.0, window_frames=100)
    made = torch.cat([stream.push(mel_of(50)), stream.flush()], dim=2)
    with torch.inference_mode():
        expected = generator(mel_of(50), FrameNoise(1, 3, 0, torch.float32, "cpu").take(50))
    torch.testing.assert_close(made, expected, rtol=0, atol=1e-5)
