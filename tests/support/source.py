"""What the source of ``univnet`` says about itself, for the tests of its layout."""

import ast
import importlib
import inspect
import pkgutil
import textwrap
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import lightning
import torch
from torch.utils.data import DataLoader

import univnet
from support import ROOT

# Where Lightning keeps trainers, strategies, loops, connectors, plugins, modules and its command line.
INSIDES = ("trainer", "strategies", "loops", "plugins", "core", "cli.py", "utilities/combined_loader.py")
# Names that objects of those kinds go by, alone or after another word (``fit_loop``).
KINDS = ("trainer", "strategy", "loop", "connector", "plugin", "fetcher", "launcher", "combined_loader")


def modules() -> dict[str, Path]:
    """Return the package's modules by dotted names; a package's own is its ``__init__``."""
    found = {}
    for path in sorted((ROOT / "univnet").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(source: str, typing_too: bool = True) -> Iterator[str]:
    """Yield the dotted names that a source imports anywhere in it.

    Args:
        source: Python.
        typing_too: False leaves out what is imported under ``if TYPE_CHECKING``.
    """
    tree = ast.parse(source)
    guarded: set[ast.AST] = set()
    if not typing_too:
        blocks = [node for node in ast.walk(tree) if isinstance(node, ast.If)]
        blocks = [node for node in blocks if ast.unparse(node.test).endswith("TYPE_CHECKING")]
        guarded = {inner for block in blocks for statement in block.body for inner in ast.walk(statement)}
    for node in ast.walk(tree):
        if node in guarded:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"a relative import in line {node.lineno}"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name != "_"


@cache
def lightnings_names() -> frozenset[str]:
    """Return the private attributes and methods of Lightning's classes, but for those that torch's have, too."""
    root, found = Path(lightning.__file__).parent / "pytorch", set[str]()
    for inside in INSIDES:
        assert (root / inside).exists(), inside
        for path in [root / inside] if inside.endswith(".py") else (root / inside).rglob("*.py"):
            found |= own_names(ast.parse(path.read_text()))
    torchs = {*dir(torch.nn.Module()), *dir(torch.Tensor), *dir(torch.optim.Optimizer), *vars(DataLoader([0]))}
    return frozenset(name for name in found - torchs if is_private(name))


def own_names(tree: ast.AST) -> set[str]:
    """Return the names of the classes' methods and attributes that a tree defines."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef):
            names |= {each.name for each in node.body if isinstance(each, ast.FunctionDef)}
            targets = [each.targets[0] if isinstance(each, ast.Assign) else getattr(each, "target", None)
                       for each in node.body]  # fmt: skip
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and ast.unparse(node.value) == "self":
            names.add(node.attr)
    return names


def private_uses(source: str) -> list[str]:
    """Return where a source uses Lightning's private names, as ``line: expression``.

    These are its private imports; attributes that Lightning's classes have, of anything but ``self`` and ``cls``; any
    private attribute of what is called a trainer, a strategy, a loop and so on, reached in whatever way; and the
    names as text or keyword, as ``getattr`` and ``vars(…).update`` take them.
    """
    found = []
    for node in ast.walk(ast.parse(source)):
        name = None
        if isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in ("lightning", "pytorch_lightning"):
            name = next((alias.name for alias in node.names if is_private(alias.name)), None)
        elif isinstance(node, ast.Attribute) and is_private(node.attr):
            base = ast.unparse(node.value)
            words = {each.id if isinstance(each, ast.Name) else each.attr for each in ast.walk(node.value)
                     if isinstance(each, ast.Name | ast.Attribute)}  # fmt: skip
            of_theirs = any(word.lower().endswith(KINDS) for word in words)
            if of_theirs or (base not in ("self", "cls") and node.attr in lightnings_names()):
                name = ast.unparse(node)
        elif isinstance(node, ast.Constant) and node.value in lightnings_names():
            name = ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in lightnings_names():
            name = node.arg
        if name:
            found.append(f"{getattr(node, 'lineno', '?')}: {name}")
    return found


def overridden(cls: type) -> list[str]:
    """Return the private names of Lightning's ancestors that a class defines again, or uses on itself."""
    insides = tuple(f"lightning.pytorch.{inside.removesuffix('.py').replace('/', '.')}" for inside in INSIDES)
    theirs = [base for base in cls.__mro__ if base.__module__.startswith(insides)]
    inherited = {name for base in theirs for name in own_names(ast.parse(inspect.getsource(inspect.getmodule(base))))}
    if not inherited:
        return []
    tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    used = {node.attr for node in ast.walk(tree)
            if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "self"}  # fmt: skip
    torchs = set(dir(torch.nn.Module()))
    return sorted(name for name in (own_names(tree) | used) & inherited - torchs if is_private(name))


def classes() -> Iterator[type]:
    """Yield the classes that the package's modules define."""
    for each in pkgutil.walk_packages(univnet.__path__, "univnet."):
        module = importlib.import_module(each.name)
        yield from (cls for _, cls in inspect.getmembers(module, inspect.isclass) if cls.__module__ == each.name)
