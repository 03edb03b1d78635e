from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from torchaudio.functional import resample

from univnet.audio import audio_length, read_segment, write_audio


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
        Path(file.name).write_bytes(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(sf.SoundFile, "write", full_disk)
    with pytest.raises(OSError, match="disk full"):
        write_audio(path, torch.ones(100), 24000)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["a.wav"]
