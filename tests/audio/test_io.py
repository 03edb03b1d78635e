import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import soxr
import torch
from torchaudio.functional import resample

from univnet.audio import AudioReader, audio_length, read_segment, resampled_length, shown, write_audio
from univnet.audio.resampling import Resampling


@pytest.mark.parametrize(("extension", "subtype"), [("wav", "PCM_16"), ("flac", "PCM_16"), ("ogg", "VORBIS")])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16000, 24000, 22050, 8000])
def test_a_segment_is_the_same_part_of_the_whole(tmp_path, speech, extension, subtype, channels, rate):
    path = tmp_path / f"a.{extension}"
    sf.write(path, np.stack([speech, speech[::-1]][:channels], 1), 16000, subtype=subtype)
    whole = torch.from_numpy(sf.read(path, dtype="float32", always_2d=True)[0].mean(1)[None])
    whole = resample(whole, 16000, rate)
    total = whole.shape[1]
    assert audio_length(path, rate) == total
    rng = np.random.default_rng(0)
    places = [(0, 1), (0, total), (total, 0), (total - 1, 1), (total - 5000, 5000)]
    places += [(int(rng.integers(total - 4000)), int(rng.integers(1, 4000))) for _ in range(20)]
    for start, length in places:
        part = read_segment(path, start, length, rate)
        assert part.shape == (1, length)
        torch.testing.assert_close(part, whole[:, start : start + length], atol=1e-6, rtol=0)


def test_reading_errors_name_the_file(tmp_path, make_audio):
    path = make_audio("a.wav", samples=1000)
    with pytest.raises(ValueError, match=r"a\.wav has 1500 samples at 24000 Hz"):
        read_segment(path, 1400, 101, 24000)
    with pytest.raises(FileNotFoundError, match=r"missing\.wav"):
        read_segment(tmp_path / "missing.wav", 0, 1, 24000)
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(ValueError, match=r"text\.wav is not readable"):
        audio_length(tmp_path / "text.wav", 24000)


def test_written_audio_is_clipped_pcm_16(tmp_path):
    path = tmp_path / "new" / "a.wav"
    write_audio(path, torch.tensor([[0.0, 0.5, 2.0, -2.0]]), 24000)
    assert sf.info(path).subtype == "PCM_16"
    np.testing.assert_allclose(sf.read(path)[0], [0, 0.5, 1, -1], atol=1e-4)
    assert [file.name for file in path.parent.iterdir()] == ["a.wav"]


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.wav"
    write_audio(path, torch.zeros(100), 24000)
    before = path.read_bytes()
    with pytest.raises(ValueError, match="NaN"):
        write_audio(path, torch.tensor([float("nan")]), 24000)
    with pytest.raises(ValueError, match="shape"):
        write_audio(path, torch.zeros(2, 100), 24000)

    def full_disk(file, *args, **options):
        Path(os.fsdecode(file.name)).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(sf.SoundFile, "write", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_audio(path, torch.ones(100), 24000)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]


@pytest.mark.parametrize("rates", [(44101, 24000), (24000, 44101), (16001, 24000), (96001, 16000), (999983, 24000)])
def test_rates_without_a_small_ratio(tmp_path, rates):
    old, new = rates
    sound = np.random.default_rng(0).normal(0, 0.1, 9000)
    sf.write(tmp_path / "a.wav", sound, old, subtype="FLOAT")
    total = audio_length(tmp_path / "a.wav", new)
    whole = read_segment(tmp_path / "a.wav", 0, total, new)
    for start, length in [(0, 1), (0, total), (total, 0), (total - 1, 1), (total // 3, 50), (total // 2, total // 4)]:
        part = read_segment(tmp_path / "a.wav", start, length, new)
        torch.testing.assert_close(part, whole[:, start : start + length], atol=1e-6, rtol=0)
    reference = soxr.resample(sound, old, new, quality="VHQ")  # a filter of its own: alike where both let sound pass
    spectra = [np.abs(np.fft.rfft(x[: total - 1], 2**16)) for x in (whole[0].numpy(), reference)]
    kept = int(2**16 * min(old, new) * 0.35 / new)
    assert np.abs(spectra[0] - spectra[1])[:kept].max() < 0.02 * spectra[1][:kept].max()


@pytest.mark.parametrize("rates", [(147, 160), (160, 147), (2, 3), (441, 320), (1009, 1013), (1013, 211)])
def test_both_ways_of_resampling_are_torchaudios(rates):
    audio = torch.from_numpy(np.random.default_rng(0).normal(0, 0.2, (1, 5000)))
    expected = resample(audio, *rates).float()
    few, many = Resampling(*rates), Resampling(*rates)
    many._few = False
    total = resampled_length(5000, *rates)
    for way in (few, many):
        for start, stop in ((0, total), (total // 2, total // 2 + 70), (total - 3, total)):
            first, last = way.needs(start, stop)
            made = way(audio.float()[:, first:last], first, start, stop)
            torch.testing.assert_close(made, expected[:, start:stop], atol=2e-5 if way is few else 1e-6, rtol=0)


def test_a_rate_without_a_small_ratio_takes_little_memory(tmp_path, make_audio):
    path = make_audio("a.wav", samples=44101, rate=44101)
    tracemalloc.start()
    read_segment(path, 0, 16384, 24000)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


UNSEEKABLE = [("wav", "GSM610"), ("wav", "G721_32"), ("w64", "GSM610"), ("au", "G723_24"), ("aiff", "GSM610")]
INEXACT = [("mp3", "MPEG_LAYER_III"), ("ogg", "OPUS"), ("ogg", "VORBIS")]


@pytest.mark.parametrize(("extension", "subtype"), [*UNSEEKABLE, *INEXACT])
@pytest.mark.parametrize("rate", [8000, 12000])
def test_formats_that_do_not_seek_exactly(tmp_path, speech, extension, subtype, rate):
    path = tmp_path / f"a.{extension}"
    sf.write(path, speech[::2], 8000, subtype=subtype)
    whole = resample(torch.from_numpy(sf.read(path, dtype="float32")[0][None]), 8000, rate)
    with AudioReader(path, rate) as audio:
        assert audio.length == whole.shape[1]
        for start, length in [(5000, 3000), (8000, 100), (7990, 3000), (20, 500), (0, audio.length)]:
            part = audio.read(start, length)
            torch.testing.assert_close(part, whole[:, start : start + length], atol=1e-6, rtol=0)


def test_a_long_recording_is_read_in_parts(tmp_path, monkeypatch):
    sound = np.random.default_rng(0).normal(0, 0.1, (30000, 2))
    sf.write(tmp_path / "a.flac", sound, 44100)
    monkeypatch.setattr("univnet.audio.io._PART", 1000)
    monkeypatch.setattr("univnet.audio.resampling._PIECE", 1000)
    monkeypatch.setattr("univnet.audio.io._VALUES", 700)
    whole = resample(torch.from_numpy(sf.read(tmp_path / "a.flac", dtype="float32")[0].mean(1)[None]), 44100, 24000)
    decoded = []
    with AudioReader(tmp_path / "a.flac", 24000, see=lambda block: decoded.append(len(block))) as audio:
        parts = list(audio.parts())
        assert [part.shape[1] for part in parts] == [1000] * (audio.length // 1000) + [audio.length % 1000]
    torch.testing.assert_close(torch.cat(parts, 1), whole, atol=1e-6, rtol=0)
    assert sum(decoded) == 30000  # each frame once, for all that parts overlap
    assert max(decoded) == 350
    torch.testing.assert_close(
        read_segment(tmp_path / "a.flac", 500, 9000, 24000), whole[:, 500:9500], atol=1e-6, rtol=0
    )


def test_offset_and_gain(tmp_path, speech):
    sf.write(tmp_path / "a.wav", speech + 0.25, 16000, subtype="FLOAT")
    whole = resample(torch.from_numpy(speech)[None], 16000, 24000)
    part = read_segment(tmp_path / "a.wav", 0, whole.shape[1], 24000, offset=0.25, gain=0.5)
    torch.testing.assert_close(part, whole / 2, atol=1e-6, rtol=0)


def test_names_that_are_not_utf8(tmp_path, speech):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.wav"))
    write_audio(path, torch.from_numpy(speech), 16000)
    assert read_segment(path, 0, len(speech), 16000).abs().max() > 0.1
    assert shown(path).endswith("caf\\xe9.wav")
    with pytest.raises(ValueError, match=r"caf\\xe9\.wav has") as caught:
        read_segment(path, 0, len(speech) + 1, 16000)
    str(caught.value).encode()
