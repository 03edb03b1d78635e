"""Which way imports point, how large files and folders are, that a verb is a module, and where Lightning ends."""

import ast
import sys
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from lightning.pytorch.cli import LightningCLI
from support import ROOT
from support.source import classes, imports, lightnings_names, modules, overridden, private_uses

from univnet.cli import VERBS

MODULES = modules()
# The parts of the package, and which others each may import; ``common`` is for all of them.
PARTS: dict[str, set[str]] = {
    "common": set(),
    "runtime": set(),
    "gan": set(),
    "models": set(),
    "audio": set(),
    "losses": {"audio"},
    "data": {"audio"},
    "convert": {"models"},
    "weights": {"audio", "convert", "gan", "models"},
    "metrics": {"audio", "data", "losses"},
    "vocoder": {"audio", "gan", "models", "weights"},
    "module": {"audio", "gan", "losses", "models", "runtime"},
    "callbacks": {"audio", "gan", "metrics"},
    "benchmarks": {"audio", "callbacks", "convert", "data", "gan", "losses", "models", "module", "runtime", "vocoder"},
}
PARTS["cli"] = {*PARTS}
PARTS["__init__"] = {"audio", "data", "models", "module", "vocoder"}
# What those may import that could be used without the rest; the others may import whatever is declared.
PACKAGES = {
    "common": {"torch"},
    "runtime": {"torch"},
    "gan": {"torch", "lightning", "lightning_utilities", "numpy", "matplotlib"},
    "models": {"torch"},
    "audio": {"torch", "torchaudio", "numpy", "soundfile", "matplotlib", "safetensors"},
    "losses": {"torch"},
    "data": {"torch", "torchaudio", "lightning", "numpy", "soundfile"},
    "convert": {"torch"},
    "vocoder": {"torch"},
    "module": {"torch", "lightning"},
    "callbacks": {"torch", "lightning", "numpy", "matplotlib"},
    "__init__": set[str](),
}
# Where Lightning's private names may stand: behind the wall, and in the overrides of its command line.
INSIDERS = {"univnet.gan.lightning_internals"}
OVERRIDES = {"univnet.cli.training"}


def part_of(module: str) -> str:
    """Return the part that a module is of, ``__init__`` for the package itself."""
    return [*module.split("."), "__init__"][1]


@pytest.mark.parametrize("part", sorted({part_of(module) for module in MODULES}))
def test_imports_point_one_way(part: str) -> None:
    wrong = []
    for module, path in MODULES.items():
        for name in imports(path.read_text()) if part_of(module) == part else ():
            top = name.split(".")[0]
            if top == "univnet":
                ok = part_of(name) in PARTS[part] | {part, "common"}
            else:
                ok = top in sys.stdlib_module_names or part not in PACKAGES or top in PACKAGES[part]
            if not ok:
                wrong.append(f"{module}: {name}")
    assert not wrong


def test_the_one_way_is_one() -> None:
    assert [*TopologicalSorter(PARTS).static_order()]


def graph(sources: dict[str, str]) -> dict[str, set[str]]:
    """Return which modules each module imports when it runs, also where it does so in a function."""
    found: dict[str, set[str]] = {}
    for module, source in sources.items():
        names = imports(source, typing_too=False)
        homes = {name if name in sources else name.rpartition(".")[0] for name in names}
        found[module] = {home for home in homes if home in sources}
    return found


def circle(sources: dict[str, str]) -> list[str]:
    try:
        TopologicalSorter(graph(sources)).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_modules_import_each_other() -> None:
    assert circle({module: path.read_text() for module, path in MODULES.items()}) == []


def test_circles_are_seen() -> None:
    pair = {"p.a": "import p.b", "p.b": "def f():\n    from p.a import x"}
    assert set(circle(pair)) == {"p.a", "p.b"}
    assert circle(pair | {"p.a": "if TYPE_CHECKING:\n    import p.b"}) == []
    assert circle({"p": "from p.a import x", "p.a": "from p import y"})  # a package's own names
    assert graph({"p": "", "p.a": "from p import b", "p.b": ""})["p.a"] == {"p.b"}


def test_the_reader_of_imports_sees_them() -> None:
    source = "import a.b\nfrom univnet.gan.updates import c\nfrom univnet import d\ndef f():\n  import e\n"
    source += "if typing.TYPE_CHECKING:\n  import g\nelse:\n  import h\n"
    seen = ["a.b", "e", "h", "univnet.d", "univnet.gan.updates.c"]
    assert sorted(imports(source, typing_too=False)) == seen
    assert sorted(imports(source)) == sorted([*seen, "g"])
    assert [part_of(name) for name in ("univnet.d", "univnet.gan.updates.c", "univnet")] == ["d", "gan", "__init__"]
    with pytest.raises(AssertionError, match="a relative import in line 1"):
        list(imports("from . import x"))


def test_no_test_imports_another() -> None:
    for path in (ROOT / "tests").rglob("*.py"):
        names = [part for name in imports(path.read_text()) for part in name.split(".")]
        assert not [name for name in names if name.startswith("test_")], path


def test_every_file_can_be_read_in_one_sitting() -> None:
    files = [path for folder in ("univnet", "tests", "scripts", "docs") for path in (ROOT / folder).rglob("*.py")]
    assert len(files) > len(MODULES)
    assert not [path for path in files if len(path.read_text().splitlines()) > 400]


@pytest.mark.parametrize("folder", sorted({path.parent.relative_to(ROOT) for path in MODULES.values()}), ids=str)
def test_every_folder_can_be_seen_at_a_glance(folder: Path) -> None:
    assert len(list((ROOT / folder).glob("*.py"))) <= (6 if folder == Path("univnet") else 13)


def runs(module: str) -> bool:
    body = ast.parse(MODULES[module].read_text()).body
    return any(isinstance(node, ast.FunctionDef) and node.name == "run" for node in body)


def test_a_verb_is_a_module_with_run() -> None:
    homes = {f"univnet.cli.{verb.module}" for verb in VERBS.values()}
    assert homes == {module for module in MODULES if part_of(module) == "cli" and runs(module)}


@pytest.mark.parametrize("module", MODULES)
def test_lightnings_insides_are_behind_one_wall(module: str) -> None:
    uses = private_uses(MODULES[module].read_text())
    if module in OVERRIDES:
        uses = [use for use in uses if not use.partition(": ")[2].startswith("super()._")]
    if module in INSIDERS:
        assert uses
    else:
        assert not uses


def test_lightnings_methods_are_overridden_behind_it() -> None:
    found = {f"{cls.__module__}.{cls.__qualname__}": names for cls in classes() if (names := overridden(cls))}
    assert {name.rpartition(".")[0] for name in found} <= INSIDERS | OVERRIDES
    assert set(found["univnet.cli.training.TrainingCLI"]) <= set(vars(LightningCLI))


class Extended(LightningCLI):
    def _parse_ckpt_path(self) -> None:
        self._ours = self._run_subcommand


def test_the_wall_has_no_holes() -> None:
    assert overridden(Extended) == ["_parse_ckpt_path", "_run_subcommand"]
    assert {"_data_source", "_combined_loader", "_ddp_kwargs", "_launcher", "_hparams"} <= lightnings_names()
    for hidden in (
        "from lightning.pytorch.loops.fit_loop import _FitLoop",
        "self.trainer._anything",
        "trainer.fit_loop.epoch_loop._batches_that_stepped = 3",
        "trainer.fit_loop.epoch_loop.val_loop.x()._y",
        "ddp_strategy._x",
        "(trainer.strategy or other)._x",
        "other = x._data_connector",
        "getattr(x, '_data_connector')",
        "vars(x).update(_ddp_kwargs={})",
        "vars(x)['_launcher']",
        "super()._should_check_val_fx(fetcher)",
    ):
        assert len(private_uses(hidden)) == 1, hidden
    for ours in (
        "self._launcher",
        "self._trainer.strategy.x",
        "cls._x",
        "tensor._version",
        "module._buffers",
        "from univnet.gan import _X",
        "torch._foreach_mul_(xs, 2)",
        "trainer.__class__",
        "f(_)",
    ):
        assert not private_uses(ours), ours
