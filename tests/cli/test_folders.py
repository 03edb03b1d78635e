"""Folders that cannot be written to are refused by the option that names them, before anything is read or written."""

from collections.abc import Callable
from pathlib import Path

import pytest

VERBS = {
    "synthesize": ["synthesize", "--checkpoint", "demo", "SPEECH"],
    "evaluate": ["evaluate", "--checkpoint", "demo", "--data", "DEMO"],
    "prepare": ["prepare", "DEMO"],
    "folder": ["export", "--checkpoint", "demo", "--to", "folder"],
    "onnx": ["export", "--checkpoint", "demo", "--to", "onnx"],
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "file"
    path.write_text("kept")
    return path


@pytest.mark.parametrize("verb", VERBS)
def test_output(verb: str, refused: Callable[..., str], file: Path, speech_file: Path, demo: Path) -> None:
    places = {"SPEECH": str(speech_file), "DEMO": str(demo)}
    argv = [places.get(word, word) for word in VERBS[verb]]
    target = file / "x" / "y"
    told = refused(*argv, "--output", target)
    named = target.parent if verb == "onnx" else target
    assert f"--output {named} cannot be made, for {file} is a file: name a folder" in told
    assert file.read_text() == "kept"
    if Path("/proc/self").exists():  # whose permissions would let the administrator write
        assert "cannot be written to (no folder can be made there): name another" in refused(
            *argv, "--output", "/proc/x/y"
        )


def test_a_folder_that_can_be_made_is_not_made(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert "there is no checkpoint" in refused(
        "evaluate", "--data", tmp_path, "--checkpoint", "nowhere.ckpt", "--output", tmp_path / "a" / "b"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("option", ["trainer.logger.init_args.save_dir", "trainer.default_root_dir"])
@pytest.mark.parametrize("verb", ["fit", "find-lr"])
def test_folders_of_a_run(verb: str, option: str, refused: Callable[..., str], config: Path, file: Path) -> None:
    told = refused(verb, "--config", config, f"--{option}", file)
    assert told.startswith(f"{option} {file}")
    assert f"{file} is a file: name a folder" in told


def test_what_find_lr_writes(refused: Callable[..., str], config: Path, file: Path) -> None:
    told = refused("find-lr", "--config", config, "--write", file / "mine.yaml")
    assert told == f"--write: the folder {file} is a file: name a folder"
