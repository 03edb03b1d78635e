"""Completion with Tab, by bash itself."""

import shutil
import subprocess
from collections.abc import Callable

import pytest
from support import ROOT

from univnet.cli import VERBS, main

COMPLETE = r"""
source "$1"
shift
COMP_WORDS=(univnet "$@")
COMP_CWORD=$#
_shtab_univnet
printf '%s\n' "${COMPREPLY[@]}"
"""


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> str:
    pytest.importorskip("shtab")
    file = tmp_path_factory.mktemp("completion") / "univnet.bash"
    with pytest.MonkeyPatch.context() as patch, file.open("w") as out:
        patch.setattr("sys.stdout", out)
        main(["--print-completion", "bash"])
    return str(file)


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["fi"], ["fit", "find-lr", "find-batch-size"]),
        ([""], list(VERBS)),
        (["fit", "--trainer.max_s"], ["--trainer.max_steps"]),
        (["fit", "--data.short", ""], ["pad", "skip"]),
        (["fit", "--config", "configs/dem"], ["configs/demo.yaml"]),
        (["find-batch-size", "--mode", "bin"], ["binsearch"]),
        (["export", "--to", "o"], ["onnx"]),
        (["prepare", "--sam"], ["--sample-rate"]),
        (["demo", "--data.batch"], ["--data.batch_size"]),
        (["fit", "--ckpt"], ["--ckpt_path"]),
        (["demo", "--ckpt"], []),
    ],
)
def test_bash_completes(script: str, words: list[str], offered: list[str]) -> None:
    command = ["bash", "-c", COMPLETE, "bash", script, *words]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=ROOT)
    assert ended.stderr == ""
    assert sorted(word for word in ended.stdout.split() if not (words == [""] and word.startswith("-"))) == sorted(
        offered
    )


def test_zsh_has_a_script_with_the_options_texts(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab")
    main(["--print-completion", "zsh"])
    out, err = capsys.readouterr()
    assert out.startswith("#compdef univnet")
    assert "--trainer.max_steps[generator updates in all, -1 for no end" in out
    assert err == ""


def test_other_shells_are_refused(refused: Callable[..., str]) -> None:
    assert refused("--print-completion", "cmd") == "--print-completion is for bash or zsh, got 'cmd'"
    assert refused("--print-completion") == "--print-completion is for bash or zsh, got ''"


def test_without_shtab_it_says_how_to_install_it(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "shtab", None)
    assert refused("--print-completion", "bash").endswith("pip install 'univnet[completion]'")
