import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf

from univnet.data.manifest import (
    AudioFile,
    check_files,
    read_manifest,
    scan_folder,
    split_files,
    warn_of_resampling,
)


def names(files):
    return [file.name for file in files]


def test_scanning_finds_every_format_at_any_depth(tmp_path, make_audio):
    for name in ("b/2.FLAC", "a.wav", "b/c/1.ogg"):
        make_audio(name)
    (tmp_path / "notes.txt").write_text("no audio")
    assert names(scan_folder(tmp_path)) == ["a.wav", "b/2.FLAC", "b/c/1.ogg"]


def test_empty_and_missing_places_are_named(tmp_path):
    with pytest.raises(ValueError, match=f"{tmp_path} holds no"):
        scan_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        scan_folder(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_manifest(tmp_path / "nowhere.tsv")


@pytest.mark.parametrize("comma", [",", "\t"])
def test_manifest(tmp_path, comma):
    path = tmp_path / "list"
    rows = [["text", "path", "mel", "speaker"], ['a "b', "x/a.wav", "x/a.npy", "anna"], ["", "b.wav", "", ""]]
    path.write_text("\n".join(comma.join(row) for row in rows), encoding="utf-8-sig")
    first, second = read_manifest(path)
    assert first == AudioFile(tmp_path / "x/a.wav", "x/a.wav", "anna", tmp_path / "x/a.npy")
    assert second == AudioFile(tmp_path / "b.wav", "b.wav")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("file,speaker\na.wav,x\n", "no column 'path'; its header names file, speaker"),
        ("", "no column 'path'; its header names nothing"),
        ("path,speaker\n", "lists no file"),
        ("path,speaker\na.wav,x\n,x\n", "no path in row 3"),
    ],
)
def test_manifest_mistakes(tmp_path, text, message):
    (tmp_path / "list.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        read_manifest(tmp_path / "list.csv")


def test_demo_is_complete(demo):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files, dropped = check_files(read_manifest(demo / "manifest.tsv"))
    assert not dropped
    assert names(files) == names(scan_folder(demo))
    assert 240 < sum(file.seconds for file in files) < 360
    assert {file.sample_rate for file in files} == {16000}
    assert "Nickolay V. Shmyrev" in (demo / "LICENSE.txt").read_text()


@pytest.fixture
def bad_folder(tmp_path, make_audio) -> Path:
    """Two good files, and one or two of each bad kind."""
    make_audio("good.flac", samples=16000)
    make_audio("good_stereo.wav", samples=24000, channels=2, rate=24000)
    for name in ("cut.wav", "cut.flac"):
        path = make_audio(name, samples=32000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "zero.wav").write_bytes(b"")
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    sf.write(tmp_path / "silent.wav", np.full(16000, 5e-5), 16000)
    for name, value in (("nan.wav", np.nan), ("inf.wav", np.inf)):
        sf.write(tmp_path / name, np.r_[np.ones(1000) / 2, value], 16000, subtype="FLOAT")
    return tmp_path


def test_bad_files_are_left_out_and_counted(bad_folder):
    listed = [*scan_folder(bad_folder), AudioFile(bad_folder / "gone.wav", "gone.wav")]
    listed.append(AudioFile(bad_folder / "good.flac", "no mel", mel=bad_folder / "gone.npy"))
    with pytest.warns(UserWarning, match=r"10 of 12 audio files are left out") as caught:
        kept, dropped = check_files(listed)
    assert [(file.name, file.samples, file.sample_rate) for file in kept] == [
        ("good.flac", 16000, 16000),
        ("good_stereo.wav", 24000, 24000),
    ]
    assert {reason: names(files) for reason, files in dropped.items()} == {
        "truncated": ["cut.flac", "cut.wav"],
        "empty": ["empty.wav"],
        "with NaN or infinity": ["inf.wav", "nan.wav"],
        "silent": ["silent.wav"],
        "unreadable": ["text.wav", "zero.wav"],
        "missing": ["gone.wav"],
        "without their mel file": ["no mel"],
    }
    assert len(caught) == 1
    assert "2 truncated, for example" in str(caught[0].message)
    assert "cut.flac" in str(caught[0].message)


def test_headers_alone(bad_folder):
    with pytest.warns(UserWarning, match="4 of 10"):
        kept, _ = check_files(scan_folder(bad_folder), check="header")
    assert {"cut.flac", "silent.wav", "nan.wav", "inf.wav"} < set(names(kept))


def test_no_file_left_is_an_error(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(ValueError, match=r"None of the 1 audio files can be used: 1 unreadable, for example .*text"):
        check_files(scan_folder(tmp_path))


def test_a_streamed_wav_is_whole(tmp_path, make_audio):
    path = make_audio("streamed.wav")  # as ffmpeg writes into a pipe: the length in the header means nothing
    data = bytearray(path.read_bytes())
    data[data.find(b"data") + 4 :][:4] = data[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert check_files(scan_folder(tmp_path))[0][0].samples == 16000


def listing(count: int) -> list[AudioFile]:
    return [AudioFile(Path(f"/{i}.wav"), f"{i}.wav", None, None, 16000, 16000) for i in range(count)]


def test_split_is_by_file(tmp_path):
    training, validation = split_files(listing(1000), 0.1, seed=1)
    assert 70 < len(validation) < 130
    assert sorted(names(training + validation)) == sorted(names(listing(1000)))
    assert split_files(listing(1000)[::-1], 0.1, seed=1)[1] == validation[::-1]
    more = split_files(listing(1500), 0.1, seed=1)[1]
    assert [file for file in more if int(file.path.stem) < 1000] == validation
    assert split_files(listing(1000), 0.1, seed=2)[1] != validation


def test_split_sizes():
    assert len(split_files(listing(10), 3)[1]) == 3
    assert len(split_files(listing(10), 1e-9)[1]) == 1
    for nothing in (0, 0.0):
        assert split_files(listing(10), nothing) == (listing(10), [])
    for everything in (10, 11, 0.999999999):
        with pytest.raises(ValueError, match="leaves none of the 10 files"):
            split_files(listing(10), everything)
    for wrong in (1.0, -0.1, -1):
        with pytest.raises(ValueError, match="validation must be"):
            split_files(listing(10), wrong)


def test_resampling_is_said_once():
    files = [*listing(2), AudioFile(Path("a"), "a", samples=1, sample_rate=44100)]
    with pytest.warns(UserWarning, match=r"3 audio files are resampled to 24000 Hz .*2 from 16000 Hz, 1 from 44100 Hz"):
        warn_of_resampling(files, 24000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_resampling(listing(2), 16000)
