import os
import warnings

import pytest
import soundfile as sf

from univnet.audio import LogMelSpectrogram
from univnet.data import SegmentDataset, check_files, scan_folder, split_files


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


def test_links_are_followed_beside_ordinary_folders(tmp_path, make_audio):
    for name in ("elsewhere/b.wav", "elsewhere/deep/c.wav", "other/d.wav", "root/a.wav"):
        make_audio(name)
    root = tmp_path / "root"
    (root / "linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (root / "d.wav").symlink_to(tmp_path / "other" / "d.wav")
    assert names(scan_folder(root)) == ["a.wav", "d.wav", "linked/b.wav", "linked/deep/c.wav"]
    (tmp_path / "way in").symlink_to(root)
    assert names(scan_folder(tmp_path / "way in")) == names(scan_folder(root))
    assert len(check_files(scan_folder(root))[0]) == 4


def test_loops_end_and_what_is_reached_twice_is_taken_once(tmp_path, make_audio):
    make_audio("z/a.wav")
    make_audio("z/inner/b.wav")
    (tmp_path / "z" / "inner" / "up").symlink_to(tmp_path)
    (tmp_path / "z" / "self").symlink_to("self")
    (tmp_path / "a").symlink_to("z")  # the name through no link wins, whatever the order
    (tmp_path / "a.wav").symlink_to("a/a.wav")
    with pytest.warns(UserWarning, match="1 links lead nowhere, for example .*self"):
        assert names(scan_folder(tmp_path)) == ["z/a.wav", "z/inner/b.wav"]


def test_two_links_to_one_folder_give_the_first_name(tmp_path, make_audio):
    make_audio("store/a.wav")
    (tmp_path / "root").mkdir()
    for name in ("y", "x"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "store")
    assert names(scan_folder(tmp_path / "root")) == ["x/a.wav"]


def test_formats_that_are_not_read_are_counted_by_suffix(tmp_path, make_audio):
    make_audio("a.wav")
    for name in ("a.m4a", "b.M4A", "c/d.wma", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"sound")
    (tmp_path / "gone.flac").symlink_to("nothing.flac")
    with pytest.warns(UserWarning, match="links lead nowhere") as caught:
        assert names(scan_folder(tmp_path)) == ["a.wav"]
    assert len(caught) == 1
    text = str(caught[0].message)
    assert "3 files are in formats that are not read (2 .m4a, 1 .wma): convert them" in text
    assert "1 links lead nowhere, for example" in text
    (tmp_path / "a.wav").unlink()
    with (
        pytest.warns(UserWarning, match="formats"),
        pytest.raises(ValueError, match=r"holds no .* at any depth.* 3 files are in formats that are not read"),
    ):
        scan_folder(tmp_path)


@pytest.mark.skipif(os.getuid() == 0, reason="root opens every folder")
def test_closed_folders_are_counted(tmp_path, make_audio):
    make_audio("a.wav")
    make_audio("b/c.wav")
    (tmp_path / "b").chmod(0)
    try:
        with pytest.warns(UserWarning, match="1 folders cannot be opened, for example .*/b"):
            assert names(scan_folder(tmp_path)) == ["a.wav"]
    finally:
        (tmp_path / "b").chmod(0o700)


@pytest.mark.parametrize("extension", ["mp3", "opus", "ogg", "aiff", "au", "caf", "w64"])
def test_what_libsndfile_decodes_is_trained_on(tmp_path, speech, extension):
    sf.write(tmp_path / f"a.{extension}", speech, 16000, format={"opus": "OGG"}.get(extension, extension))
    files, _ = check_files(scan_folder(tmp_path))
    dataset = SegmentDataset(files, LogMelSpectrogram(16000), 8192)
    whole = dataset.files[0].read(0, files[0].length(16000), 16000)[0]
    for draw in range(3):
        segment = dataset[draw]["context"][0, dataset.mel.context[0] :][:8192]
        windows = whole.unfold(0, 8192, 256)
        assert ((windows - segment).abs() < 1e-4).all(1).sum() == 1  # MP3 decodes to 1e-5


def test_names_that_are_not_utf8(tmp_path, make_audio):
    made = make_audio("a.wav")
    strange = os.fsencode(tmp_path) + b"/caf\xe9.wav"
    os.rename(made, strange)
    os.mkdir(os.fsencode(tmp_path) + b"/\xff")
    os.link(strange, os.fsencode(tmp_path) + b"/\xff/b.wav")
    make_audio("c.wav")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        files, _ = check_files(scan_folder(tmp_path))
    assert names(files) == ["\\xff/b.wav", "c.wav", "caf\\xe9.wav"]
    assert sum(map(len, split_files(files, 0.5))) == 3
    dataset = SegmentDataset(files, LogMelSpectrogram(16000), 8192)
    assert all(dataset[draw]["context"].abs().max() > 0.01 for draw in range(3))
    for file in files:
        assert file.read(0, 16000, 16000).abs().max() > 0.01
        file.name.encode()
    (tmp_path / "c.wav").write_bytes(b"")
    with open(os.fsencode(tmp_path) + b"/\xfe.wav", "w") as bad:
        bad.write("not audio")
    with pytest.warns(UserWarning, match="2 unreadable") as caught:
        check_files(scan_folder(tmp_path))
    str(caught[0].message).encode()
    with pytest.raises(NotADirectoryError, match=r"\\xe9"):
        scan_folder(os.fsdecode(strange))
