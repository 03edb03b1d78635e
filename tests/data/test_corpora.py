import pytest

from univnet.data.corpora import find_sources, read_metadata


def described(sources):
    return sorted((source.file.name, source.file.speaker, source.split) for source in sources)


@pytest.mark.parametrize("above", ["", "LibriTTS_R/"])
def test_libritts(tmp_path, make_audio, above):
    for name in ("train-clean-100/103/1241/103_1241_000000_000001.wav", "train-other-500/20/205/20_205_0_0.wav"):
        make_audio(above + name)
    make_audio(above + "dev-clean/84/121123/84_121123_000007_000001.wav")
    make_audio(above + "test-other/1688/142285/1688_142285_000000_000000.wav")
    make_audio(above + "notes/a.wav")
    (tmp_path / above / "train-clean-100/103/1241/103_1241_000000_000001.normalized.txt").write_text("text")
    corpus, sources = find_sources(tmp_path)
    assert corpus == "libritts"
    assert described(sources) == [
        ("dev-clean/84/121123/84_121123_000007_000001.wav", "84", "validation"),
        ("test-other/1688/142285/1688_142285_000000_000000.wav", "1688", "test"),
        ("train-clean-100/103/1241/103_1241_000000_000001.wav", "103", "train"),
        ("train-other-500/20/205/20_205_0_0.wav", "20", "train"),
    ]


def test_ljspeech(tmp_path, make_audio):
    for name in ("LJ001-0001", "LJ001-0002"):
        make_audio(f"LJSpeech-1.1/wavs/{name}.wav", rate=22050)
    text = 'LJ001-0001|Printing, "in the|Printing\nLJ001-0002|in being|in being\nLJ001-0003|gone|gone\n'
    (tmp_path / "LJSpeech-1.1" / "metadata.csv").write_text(text)
    corpus, sources = find_sources(tmp_path)
    assert corpus == "ljspeech"
    assert [source.file.path.is_file() for source in sources] == [True, True, False]
    assert {(source.file.speaker, source.split) for source in sources} == {("LJ", None)}
    assert find_sources(tmp_path, "folder")[0] == "folder"


def test_vctk(tmp_path, make_audio):
    for name in ("p225/p225_001_mic1.flac", "p225/p225_001_mic2.flac", "s5/s5_001_mic1.flac"):
        make_audio(f"VCTK-Corpus-0.92/wav48_silence_trimmed/{name}", rate=48000)
    corpus, sources = find_sources(tmp_path)
    assert corpus == "vctk"
    assert described(sources) == [("p225/p225_001_mic1.flac", "p225", None), ("s5/s5_001_mic1.flac", "s5", None)]


def test_tables_of_paths_texts_and_speakers(tmp_path, make_audio):
    make_audio("a.wav")
    make_audio("wavs/b.flac")
    (tmp_path / "list.txt").write_text("a.wav|one|anna\nb|two|ben\nc|three\n\na.wav|again|anna\n", encoding="utf-8-sig")
    sources = read_metadata(tmp_path / "list.txt")
    assert described(sources) == [("a.wav", "anna", None), ("b", "ben", None), ("c", None, None)]
    assert [source.file.path.is_file() for source in sources] == [True, True, False]
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"empty\.txt lists no recording"):
        read_metadata(tmp_path / "empty.txt")


def test_other_layouts_are_refused_by_name(tmp_path, make_audio):
    make_audio("x/a.wav")
    with pytest.raises(ValueError, match="not laid out as vctk is"):
        find_sources(tmp_path, "vctk")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        find_sources(tmp_path / "nowhere")
    assert described(find_sources(tmp_path)[1]) == [("x/a.wav", None, None)]
