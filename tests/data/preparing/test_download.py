"""Downloads from a server on this machine: whole, checked, and begun again after a kill."""

import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from univnet.cli import main
from univnet.data.corpora import find_sources
from univnet.data.preparing import download


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(tmp_path: Path, make_audio, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Serve an archive of LibriTTS's layout; give its address."""
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    for number in range(2):
        make_audio(f"made/LibriTTS/dev-clean/5/6/5_6_7_{number}.wav")
    (tmp_path / "served").mkdir()
    with tarfile.open(tmp_path / "served" / "dev-clean.tar.gz", "w:gz") as archive:
        archive.add(tmp_path / "made" / "LibriTTS", "LibriTTS")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=tmp_path / "served")) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}/dev-clean.tar.gz"
        serving.shutdown()


def test_a_set_comes_whole_and_once(server: str, tmp_path: Path) -> None:
    folder = tmp_path / "corpus"
    cut_short = folder / ".download" / "dev-clean"
    (cut_short / "LibriTTS" / "dev-clean" / "5").mkdir(parents=True)
    (cut_short / "dev-clean.tar.gz.partial").write_bytes(b"half")
    assert download("dev-clean", folder, server) == folder / "LibriTTS" / "dev-clean"
    kind, sources = find_sources(folder)
    assert (kind, [source.file.name for source in sources]) == (
        "libritts",
        ["dev-clean/5/6/5_6_7_0.wav", "dev-clean/5/6/5_6_7_1.wav"],
    )
    assert [path.name for path in folder.iterdir()] == ["LibriTTS"]
    assert download("dev-clean", folder, "http://127.0.0.1:9/gone.tar.gz").is_dir()  # it is there


def test_what_is_not_the_corpus_is_refused(server: str, tmp_path: Path) -> None:
    archive = tmp_path / "served" / "dev-clean.tar.gz"
    with pytest.raises(ValueError, match=r"what came for ljspeech is not the corpus \(invalid hash value"):
        download("ljspeech", tmp_path / "corpus", server)
    archive.write_bytes(archive.read_bytes()[:3000])
    with pytest.raises(ValueError, match="what came for dev-clean is not the corpus"):
        download("dev-clean", tmp_path / "corpus", server)
    archive.unlink()
    with pytest.raises(ConnectionError, match=r"dev-clean cannot be downloaded \(File not found\)"):
        download("dev-clean", tmp_path / "corpus", server)
    assert not list((tmp_path / "corpus").rglob("*.*z*"))


def test_without_network_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    for name in ("dev-clean", "ljspeech", "vctk"):
        with pytest.raises(SystemExit) as ended:
            main(["prepare", str(tmp_path / "in"), "--output", str(tmp_path / "out"), "--download", name])
        assert ended.value.code == 3
        [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("univnet: error:")]
        assert f"{name} cannot be downloaded" in line
        assert "unpack it by hand into" in line
    assert not (tmp_path / "out").exists()


def test_one_corpus_at_a_time(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["prepare", str(tmp_path), "--output", str(tmp_path.parent / "o"), "--download", "vctk", "dev-clean"])
    assert "--download takes one corpus at a time" in capsys.readouterr().err
