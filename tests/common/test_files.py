"""Files are written whole or not at all, and what a kill leaves behind is removed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from univnet.common.files import remove_partial, write_text, written_whole

WRITER = """
import sys, time
from univnet.common.files import written_whole
with written_whole(sys.argv[1]) as partial:
    with open(partial, "w") as file:
        for number in range(10**9):
            file.write(f"{number}\\n")
            file.flush()
            if number == 100:
                print("writing", flush=True)
"""


def test_a_file_appears_whole_in_a_folder_that_is_made(tmp_path: Path) -> None:
    write_text(tmp_path / "a" / "ü b#.json", "whole")
    assert (tmp_path / "a" / "ü b#.json").read_text(encoding="utf-8") == "whole"
    assert len(list((tmp_path / "a").iterdir())) == 1


def test_a_failed_writing_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "report.txt"
    path.write_text("old")

    def fail() -> None:
        with written_whole(path) as partial:
            partial.write_text("half")
            raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        fail()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_error_names_the_file_that_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "report").mkdir()
    (tmp_path / "report" / "inside").touch()
    with pytest.raises(OSError, match="report") as raised:
        write_text(tmp_path / "report", "text")
    assert raised.value.filename == str(tmp_path / "report")
    assert "partial" not in str(raised.value)


def test_a_killed_writer_leaves_the_old_file_and_its_leftover_is_removed(tmp_path: Path) -> None:
    path = tmp_path / ("long name " * 20 + ".txt")
    path.write_text("old")
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE)
    assert writer.stdout is not None
    writer.stdout.readline()
    assert remove_partial(tmp_path) == []  # it is being written
    writer.send_signal(signal.SIGKILL)
    writer.wait()
    assert path.read_text() == "old"
    [left] = remove_partial(tmp_path)
    assert not left.exists()
    assert list(tmp_path.iterdir()) == [path]


def test_another_machines_partial_file_is_left_alone_for_a_day(tmp_path: Path) -> None:
    theirs, own_name = tmp_path / ".last.ckpt.other-host.7.partial", tmp_path / ".notes.partial"
    theirs.touch()
    own_name.touch()
    assert remove_partial(tmp_path) == []
    os.utime(theirs, (0, time.time() - 100_000))
    assert remove_partial(tmp_path) == [theirs]
    assert own_name.exists()
