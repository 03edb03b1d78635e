import os
import socket
from pathlib import Path

import pytest

from univnet.data.corpora import Source, find_sources
from univnet.data.preparing import Settings, prepare_recordings
from univnet.data.preparing import run as running


class StoppedError(Exception):
    pass


@pytest.fixture
def sources(tmp_path: Path, make_audio) -> list[Source]:
    for number in range(7):
        make_audio(f"in/{number % 2}/{number}.wav", samples=9000 + number, seed=number)
    (tmp_path / "in" / "bad.wav").write_text("not audio")
    return find_sources(tmp_path / "in")[1]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_stopped_after_any_recording_and_resumed_gives_the_same_bytes(sources, tmp_path):
    whole, done = prepare_recordings(sources, Settings(), tmp_path / "whole", 0)
    assert done == 8
    for stop in range(1, 8):
        folder, seen = tmp_path / f"stopped-{stop}", []

        def progress(source, stop=stop, seen=seen):
            seen.append(source.file.name)
            if len(seen) == stop:
                raise StoppedError

        with pytest.raises(StoppedError):
            prepare_recordings(sources, Settings(), folder, 0, progress)
        journal = folder / "prepared.jsonl"
        journal.write_bytes(journal.read_bytes()[:-5])  # the kill came while it was written
        dead = folder / "0" / f".x.flac.{socket.gethostname()}.999999999.partial"
        dead.parent.mkdir(exist_ok=True)
        dead.write_bytes(b"half")
        seen.clear()
        resumed, done = prepare_recordings(
            sources, Settings(), folder, 0, lambda source, seen=seen: seen.append(source)
        )
        assert len(seen) == 8
        assert done == 8 - stop + 1
        assert resumed == whole
        assert contents(folder) == contents(tmp_path / "whole")


def test_other_settings_do_all_again(sources, tmp_path):
    assert prepare_recordings(sources, Settings(), tmp_path / "out", 0)[1] == 8
    assert prepare_recordings(sources, Settings(), tmp_path / "out", 0)[1] == 0
    records, done = prepare_recordings(sources, Settings(sample_rate=16000, min_seconds=0.5627), tmp_path / "out", 0)
    assert done == 8
    assert [record.dropped for record in records].count("shorter than 0.5627 s") == 4


def kill_this_process(job):
    if job[0].file.name == "1/3.wav":
        os._exit(1)
    return running.prepare_recording(*job)


def test_a_recording_that_kills_its_process_is_dropped_and_named(sources, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "_prepared", kill_this_process)
    monkeypatch.setattr(running, "_context", "fork")  # so that the processes have what is patched here
    records, done = prepare_recordings(sources, Settings(), tmp_path / "out", 2)
    dropped = {record.name: record.dropped for record in records if record.dropped}
    assert dropped == {"1/3.wav": "ending the process that reads", "bad.wav": "unreadable"}
    assert done == 8


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a device that is always full")
def test_a_full_disk_ends_it_by_name(sources, tmp_path, monkeypatch):
    monkeypatch.setattr("soundfile.write", lambda *args, **options: Path("/dev/full").write_bytes(b"x" * 10000))
    with pytest.raises(OSError, match="No space left"):
        prepare_recordings(sources, Settings(), tmp_path / "out", 0)
    assert not list((tmp_path / "out").rglob("*.partial"))
