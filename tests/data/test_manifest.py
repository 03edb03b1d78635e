import os
import warnings
from pathlib import Path

import pytest

from univnet.data.check import check_files
from univnet.data.manifest import AudioFile, read_manifest, split_files
from univnet.data.scan import scan_folder


def names(files):
    return [file.name for file in files]


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


def test_a_missing_manifest_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_manifest(tmp_path / "nowhere.tsv")


def test_demo_is_complete(demo):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files, dropped = check_files(read_manifest(demo / "manifest.tsv"))
    assert not dropped
    assert names(files) == names(scan_folder(demo))
    assert 240 < sum(file.seconds for file in files) < 360
    assert {file.sample_rate for file in files} == {16000}
    assert "Nickolay V. Shmyrev" in (demo / "LICENSE.txt").read_text()


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


ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1", "cp1252"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_any_encoding_that_is_certain_is_read(tmp_path, make_audio, encoding, newline):
    make_audio("café/a.wav")
    make_audio("b.wav")
    rows = newline.join(["path,speaker", "café/a.wav,Zoë", "b.wav,anna", ""])
    (tmp_path / "list.csv").write_bytes(rows.encode(encoding))
    files = read_manifest(tmp_path / "list.csv")
    assert names(files) == ["café/a.wav", "b.wav"]
    assert [file.speaker for file in files] == ["Zoë", "anna"]
    assert len(check_files(files)[0]) == 2


def test_a_list_of_names_that_are_not_utf8(tmp_path, make_audio):
    os.rename(make_audio("a.wav"), os.fsencode(tmp_path) + b"/caf\xe9.wav")
    (tmp_path / "list.csv").write_bytes(b"path\ncaf\xe9.wav\n")
    files = read_manifest(tmp_path / "list.csv")
    assert names(files) == ["caf\\xe9.wav"]
    assert len(check_files(files)[0]) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"path\na.wav\nb\xe9.wav\n", r"not UTF-8 text \(line 3\).*save it as UTF-8"),
        (b"path\na\0.wav\n", "not UTF-8 text .there are zero bytes"),
        (b"\xff\xfep\0a\0t\0h", "not UTF-8 text .nor the utf-16"),
        (b"\xff\xfep\0a\0t\0h\0\xd8", "not UTF-8 text .nor the utf-16"),
        (b"RIFF\xff\xff\xff\xffWAVEfmt \0\0\0", "not UTF-8 text"),
        (b"path\n" + b"x" * 200_000 + b"\n", "no table that can be read .after line 1: field larger"),
        (b"x" * 200_000 + b"\n", "no table that can be read"),
        (b'path\n"' + b"a.wav\n" * 40_000, "no table that can be read"),
    ],
)
def test_tables_that_are_none_are_named(tmp_path, data, message):
    (tmp_path / "list.csv").write_bytes(data)
    with pytest.raises(ValueError, match=message) as caught:
        read_manifest(tmp_path / "list.csv")
    assert str(tmp_path / "list.csv") in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_an_enormous_table_is_refused_unread(tmp_path):
    with open(tmp_path / "list.csv", "wb") as file:
        file.truncate(2**40)  # a hole: it takes no room
    with pytest.raises(ValueError, match="over 256 MiB"):
        read_manifest(tmp_path / "list.csv")


def test_paths_that_no_file_can_have_are_missing(tmp_path, make_audio):
    make_audio("a.wav")
    (tmp_path / "list.csv").write_text("path\n" + "n" * 5000 + ".wav\n.\na.wav\n")
    with pytest.warns(UserWarning, match="2 missing"):
        assert names(check_files(read_manifest(tmp_path / "list.csv"))[0]) == ["a.wav"]


def test_rows_that_repeat_others_are_left_out(tmp_path):
    (tmp_path / "list.csv").write_text("path,mel\na.wav,1.npy\n./a.wav,1.npy\na.wav,2.npy\nb/../a.wav,2.npy\n")
    with pytest.warns(UserWarning, match="2 rows of .*list.csv repeat others"):
        files = read_manifest(tmp_path / "list.csv")
    assert [file.mel.name for file in files] == ["1.npy", "2.npy"]
