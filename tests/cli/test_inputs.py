"""A folder without recordings is told by the option that the verb has for it."""

from collections.abc import Callable
from pathlib import Path

import pytest


@pytest.mark.parametrize(
    ("argv", "option"),
    [
        (["evaluate", "--data", "PLACE", "--griffin-lim"], "--data"),
        (["evaluate", "--data", "SPEECH", "--wavs", "theirs=PLACE"], "--wavs"),
        (["prepare", "PLACE"], "SOURCE"),
    ],
)
def test_no_recordings(argv: list[str], option: str, refused: Callable[..., str], tmp_path: Path, demo: Path) -> None:
    places = {"empty": tmp_path / "empty", "nowhere": tmp_path / "nowhere"}
    places["empty"].mkdir()
    for name, said in {"empty": "point {} at recordings", "nowhere": "check {}"}.items():
        words = [word.replace("PLACE", str(places[name])).replace("SPEECH", str(demo)) for word in argv]
        told = refused(*words, "--output", tmp_path / "out")
        assert str(places[name]) in told
        assert said.format(option) in told
        assert "data.root" not in told


def test_a_file_to_prepare(refused: Callable[..., str], tmp_path: Path, speech_file: Path) -> None:
    told = refused("prepare", speech_file, "--output", tmp_path)
    assert told == f"{speech_file} is a file: SOURCE must be the folder of the recordings."
