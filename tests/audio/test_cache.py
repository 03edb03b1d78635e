"""Decoded audio that is kept: the very samples, whole, of the recording as it is now, and shared."""

import errno
import multiprocessing
import os
import pickle
import socket
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from univnet.audio import FolderCache, MemoryCache, cache, read_segment

FORMATS = {
    "mono.wav": ("PCM_16", 1),
    "mono.flac": ("PCM_16", 1),
    "stereo.flac": ("PCM_16", 2),
    "fine.flac": ("PCM_24", 1),
    "float.wav": ("FLOAT", 1),
    "speech.ogg": ("VORBIS", 1),
    "phone.wav": ("ULAW", 1),
}
FORK = multiprocessing.get_context("fork")


@pytest.fixture
def recordings(tmp_path: Path, speech: np.ndarray) -> list[Path]:
    paths = [tmp_path / name for name in FORMATS]
    for path, (subtype, channels) in zip(paths, FORMATS.values(), strict=True):
        audio = np.stack([speech, -0.5 * np.roll(speech, 99)][:channels], 1)
        audio[:3] = [[1], [-1], [0.3]]
        sf.write(path, audio[:20000], 16000, subtype=subtype)
    return paths


def places(rng: np.random.Generator) -> list[tuple]:
    """Parts at several rates, at the speeds of augmentation, and with repairs; the whole, and nothing."""
    found: list[tuple] = [(0, 20000, 16000), (20000, 0, 16000), (0, 30000, 24000), (19999, 1, 16000, 0.1, 0.5)]
    for rate, own in ((16000, None), (24000, None), (22050, 17600), (16000, 14400)):
        start = int(rng.integers(9000))
        found.append((start, int(rng.integers(5000)), rate, 0.0, float(rng.choice([1.0, 0.37])), own))
    return found


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_the_very_samples(kind: str, recordings: list[Path], tmp_path: Path) -> None:
    kept = FolderCache(tmp_path / "kept") if kind == "folder" else MemoryCache(recordings)
    rng = np.random.default_rng(0)
    for _ in range(2):  # while it is made, and from it
        for path in recordings:
            for place in places(rng):
                assert torch.equal(kept.read(path, *place), read_segment(path, *place)), (path, place)
            with pytest.raises(ValueError, match="has 20000 samples at 16000 Hz: cannot read 2 from sample 19999"):
                kept.read(path, 19999, 2, 16000)


def test_nothing_is_decoded_twice(recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in recordings:
        FolderCache(tmp_path / "kept").read(path, 0, 10, 16000)
    memory = MemoryCache(recordings)
    expected = [read_segment(path, 5000, 500, 24000) for path in recordings]
    monkeypatch.setattr(cache, "AudioReader", None)
    monkeypatch.setattr(cache, "read_segment", None)
    for kept in (FolderCache(tmp_path / "kept"), memory):  # also by a later run
        for path, audio in zip(recordings, expected, strict=True):
            assert torch.equal(kept.read(path, 5000, 500, 24000), audio)
    sizes = [path.stat().st_size for path in (tmp_path / "kept").iterdir()]
    assert sorted(sizes) == [48 + 2 * 20000] * 2 + [48 + 4 * 20000] * 5


def test_a_changed_or_lost_recording_is_noticed(tmp_path: Path, make_audio) -> None:
    path, kept = make_audio("a.wav", samples=4000), FolderCache(tmp_path / "kept")
    first = kept.read(path, 0, 4000, 16000)
    make_audio("a.wav", samples=4000, seed=1)
    os.utime(path, ns=(1, 1))
    second = kept.read(path, 0, 4000, 16000)
    assert not torch.equal(first, second)
    assert torch.equal(second, read_segment(path, 0, 4000, 16000))
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match=r"a\.wav"):
        kept.read(path, 0, 4000, 16000)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"There is no audio file .*a\.wav"):
        kept.read(path, 0, 4000, 16000)
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_damaged_entries_are_made_again(tmp_path: Path, make_audio) -> None:
    path, kept = make_audio("a.wav", samples=4000), FolderCache(tmp_path / "kept")
    expected = kept.read(path, 100, 3000, 24000)
    [entry] = (tmp_path / "kept").iterdir()
    whole = entry.read_bytes()
    for damaged in (b"", whole[:20], whole[:-1], whole + b"x", b"X" + whole[1:]):
        entry.write_bytes(damaged)
        assert torch.equal(kept.read(path, 100, 3000, 24000), expected)
        assert entry.read_bytes() == whole


def read_all(folder: Path, paths: list[Path]) -> list[torch.Tensor]:
    kept = FolderCache(folder)
    return [kept.read(path, 10, 900, 24000) for path in paths]


def test_processes_may_fill_a_folder_together(tmp_path: Path, make_audio) -> None:
    paths = [make_audio(f"{number}.flac", samples=3000, seed=number) for number in range(20)]
    dead = tmp_path / "kept" / f".x.{socket.gethostname()}.999999999.partial"
    dead.parent.mkdir()
    dead.write_bytes(b"half")
    with ProcessPoolExecutor(4, mp_context=FORK) as pool:
        results = [pool.submit(read_all, tmp_path / "kept", paths) for _ in range(4)]
        for result in results:
            for path, audio in zip(paths, result.result(), strict=True):
                assert torch.equal(audio, read_segment(path, 10, 900, 24000))
    assert not dead.exists()
    assert len(list((tmp_path / "kept").iterdir())) == 20


def test_a_full_disk_is_said_once(
    recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(self: Path, *args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", str(self))

    kept = FolderCache(tmp_path / "kept")
    kept.read(recordings[0], 0, 9, 16000)
    monkeypatch.setattr(Path, "open", full)
    for path in recordings:
        assert torch.equal(kept.read(path, 7, 900, 24000), read_segment(path, 7, 900, 24000))
    [said] = caplog.messages
    assert "The cache of decoded audio takes no more" in said
    assert "No space left on device" in said
    assert len(list((tmp_path / "kept").iterdir())) == 1


def test_memory_is_shared_with_forks_and_not_with_others(recordings: list[Path]) -> None:
    kept = MemoryCache(recordings)
    with ProcessPoolExecutor(1, mp_context=FORK, initializer=_inherit, initargs=(kept,)) as pool:
        assert torch.equal(pool.submit(_read, recordings[0]).result(), kept.read(recordings[0], 0, 99, 16000))
        kept._memory[:] = b"\1\1" * (len(kept._memory) // 2)
        assert bool((pool.submit(_read, recordings[0]).result() == 257 / 32768).all())
    with pytest.raises(TypeError, match=r"only be shared with processes that are forked: .* --data\.cache DIR"):
        pickle.dumps(kept)


def _inherit(kept: MemoryCache) -> None:
    globals()["inherited"] = kept


def _read(path: Path) -> torch.Tensor:
    return globals()["inherited"].read(path, 0, 99, 16000)


def test_what_does_not_fit_or_cannot_be_decoded(
    recordings: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bad.wav").write_text("not audio")
    cut = tmp_path / "cut.flac"
    cut.write_bytes(recordings[1].read_bytes()[:9000])
    kept = MemoryCache([*recordings, tmp_path / "bad.wav", cut, tmp_path / "none.wav"])
    for path, error in (
        (tmp_path / "bad.wav", "is not readable"),
        (cut, "truncated"),
        (tmp_path / "none.wav", "is no"),
    ):
        with pytest.raises((ValueError, OSError), match=error):
            kept.read(path, 0, 20000, 16000)
    recordings[0].unlink()
    assert kept.read(recordings[0], 0, 20000, 16000).shape == (1, 20000)  # as it was
    monkeypatch.setattr(cache, "_free", lambda: 1000.0)
    with pytest.raises(ValueError, match=r"take 0\.00 GB once decoded, but 0\.00 GB of memory are free: "):
        MemoryCache(recordings)
