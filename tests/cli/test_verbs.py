"""The table of verbs: what stands in it can be run, and all of them say mistakes and warnings in the same way."""

import inspect
import logging
import re
import subprocess
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
from lightning.fabric.utilities import warnings as lightnings
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support import ROOT

from univnet.cli import VERBS, Verb, main
from univnet.gan import NonFiniteError


@pytest.mark.parametrize("name", VERBS)
def test_a_verb_is_a_module_that_runs_arguments(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = import_module(f"univnet.cli.{VERBS[name].module}").run
    assert len(inspect.signature(run).parameters) == 1
    with pytest.raises(SystemExit) if name != "demo" else warnings.catch_warnings():
        main([name, "--help"])
    assert capsys.readouterr().out.replace("[options] ", "").startswith(f"usage: univnet {name} ")


def test_a_verbs_module_is_imported_when_asked_for() -> None:
    code = "import sys, univnet.cli; print([m for m in sys.modules if 'torch' in m or m.startswith('univnet.cli.')])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    runs = [f"univnet.cli.runs{name}" for name in ("", ".failures", ".threads", ".workers")]
    assert ended.stdout.strip() == str(["univnet.cli.messages", *runs])


# gpu_report.py must run where nothing is installed but torch and Lightning, so it is no verb.
@pytest.mark.parametrize(
    "script", sorted({*(ROOT / "scripts").glob("*.py")} - {ROOT / "scripts/gpu_report.py"}), ids=lambda path: path.stem
)
def test_a_script_names_a_verb_of_the_table(script: Path) -> None:
    named = {"prepare_data": "prepare"}.get(script.stem, script.stem.replace("_", "-"))
    assert named == "train" or f'["{named}", *sys.argv[1:]]' in script.read_text()
    assert named == "train" or named in VERBS


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Add a verb ``pretend`` that does what a function of the arguments does."""

    def add(run: Callable[[Sequence[str]], None], *leading: str) -> None:
        module = ModuleType("univnet.cli.pretend")
        module.run = run  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, module.__name__, module)
        monkeypatch.setitem(VERBS, "pretend", Verb("pretend", "pretend", leading))

    return add


def test_leading_arguments_come_first(pretend: Callable[..., None]) -> None:
    seen: list[str] = []
    pretend(seen.extend, "first")
    main(["pretend", "--second", "third"])
    assert seen == ["first", "--second", "third"]


@pytest.mark.parametrize("kind", [MisconfigurationException, NonFiniteError, ValueError, FileNotFoundError])
def test_a_users_mistake_in_any_verb_is_one_line(
    kind: type[Exception], pretend: Callable[..., None], capsys: pytest.CaptureFixture[str]
) -> None:
    def run(argv: Sequence[str]) -> None:
        raise kind("two\n  lines")

    pretend(run)
    with pytest.raises(SystemExit) as ended:
        main(["pretend"])
    assert ended.value.code == 2
    assert capsys.readouterr().err == "univnet: error: two lines\n"


def test_our_own_mistake_keeps_its_traceback(pretend: Callable[..., None]) -> None:
    pretend(lambda argv: {}["key"])
    with pytest.raises(KeyError):
        main(["pretend"])


def test_warnings_are_one_line_and_what_is_of_no_use_is_hidden(
    pretend: Callable[..., None], capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    def run(argv: Sequence[str]) -> None:
        warnings.warn("two\nlines", stacklevel=1)
        warnings.warn("The 'val_dataloader' does not have many workers, which", stacklevel=1)
        log = logging.getLogger("lightning.pytorch.utilities.rank_zero")
        log.info("TPU available: False")
        log.info("of use")

    pretend(run)
    usual = warnings.formatwarning
    with caplog.at_level(logging.INFO, "lightning.pytorch.utilities.rank_zero"), warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *where: print(
            warnings.formatwarning(message, category, *where[:2]), end="", file=sys.stderr
        )
        main(["pretend"])
    assert capsys.readouterr().err == "univnet: warning: two lines\n"
    assert warnings.formatwarning is usual
    logger = logging.getLogger("lightning.pytorch.utilities.rank_zero")
    assert not logger.filters


def test_warnings_from_lightnings_files_and_our_log_have_the_same_form(
    pretend: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where a verb loads Lightning, which then changes the form of warnings from its own files."""

    def run(argv: Sequence[str]) -> None:
        monkeypatch.setattr(lightnings, "_default_format_warning", warnings.formatwarning)
        warnings.formatwarning = lightnings._custom_format_warning
        warnings.warn_explicit("of use", UserWarning, lightnings.__file__, 394)
        logging.getLogger("univnet.gan").warning("of %s", "use, too")
        logging.getLogger("univnet.gan").info("of none")

    pretend(run)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = lambda message, category, *where: print(
            warnings.formatwarning(message, category, *where[:2]), end="", file=sys.stderr
        )
        main(["pretend"])
    assert capsys.readouterr().err == "univnet: warning: of use\nunivnet: warning: of use, too\n"
    assert not logging.getLogger("univnet").handlers


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["synthesize", "--sed", "1"], "see `univnet synthesize --help`"),
        (["benchmark", "fast"], "see `univnet benchmark --help`"),
        (["find-lr", "--breadth", "1"], "see `univnet find-lr --help`"),
        (["validate", "--breadth", "1"], "see `univnet validate --help`"),
    ],
)
def test_a_mistake_in_the_options_names_the_help_to_read(
    argv: list[str], told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(argv)
    assert ended.value.code == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("univnet: error: ")
    assert line.endswith(told)


class TestMistakesAreToldInOneLine:
    def test_no_verb_lists_them(self, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as ended:
            main([])
        assert ended.value.code == 2
        listed = capsys.readouterr().err
        assert {"fit", "validate", "synthesize"} <= VERBS.keys()
        assert all(f"\n  {verb} " in listed for verb in VERBS)
        assert len(listed.splitlines()) == len(VERBS) + 2
        with pytest.raises(SystemExit) as ended:
            main(["--help"])
        assert ended.value.code == 0
        assert capsys.readouterr().out == listed

    def test_the_versions(self, capsys: pytest.CaptureFixture[str]) -> None:
        main(["--version"])
        [line] = capsys.readouterr().out.splitlines()
        known = [f"{name} {version(name)}" for name in ("torch", "lightning")]
        assert re.fullmatch(rf"univnet \S.*, {re.escape(', '.join(known))}", line)

    @pytest.mark.parametrize("verb", ["synthesize", "export", "evaluate"])
    def test_the_shipped_vocoder_is_named(self, verb: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit):
            main([verb, "--help"])
        assert "or demo, the shipped vocoder" in " ".join(capsys.readouterr().out.split())

    def test_no_such_verb(self, refused: Callable[..., str]) -> None:
        assert refused("train").startswith("there is no verb 'train'; give one of prepare, fit, validate, find-lr, ")

    def test_a_traceback_on_request(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("UNIVNET_TRACEBACK", "1")
        with pytest.raises(Exception, match="there is no verb"):
            main(["train"])

    def test_another_rank_says_who_it_is(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("LOCAL_RANK", "1")
        with pytest.raises(SystemExit):
            main(["train"])
        assert capsys.readouterr().err.startswith("univnet: rank 1: error: there is no verb")
