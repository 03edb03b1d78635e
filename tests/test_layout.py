"""Which way imports point, and how long a file may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# What a package may import besides itself and the standard library.
ALLOWED = {
    "gan": {"torch", "lightning", "lightning_utilities", "numpy", "matplotlib"},
    "models": {"torch"},
    "losses": {"torch"},
    "audio": {"torch", "torchaudio", "numpy", "soundfile", "matplotlib", "safetensors", "univnet.common"},
    "data": {"torch", "lightning", "numpy", "soundfile", "univnet.audio"},
    "vocoder": {"torch", "univnet.audio", "univnet.gan", "univnet.models", "univnet.weights"},
    "weights": {"torch", "numpy", "safetensors", "huggingface_hub", "yaml", "onnx", "onnxscript"}
    | {"univnet.audio", "univnet.common", "univnet.convert", "univnet.gan", "univnet.models"},
    "runtime": {"torch"},
    "benchmarks": {
        "torch",
        "transformers",
        "univnet.runtime",
        "univnet.audio",
        "univnet.convert",
        "univnet.data",
        "univnet.cli.messages",
    }
    | {"univnet.gan", "univnet.losses", "univnet.models", "univnet.module", "univnet.vocoder"},
    "module": {"torch", "lightning", "univnet.audio", "univnet.runtime", "univnet.gan"}
    | {"univnet.losses", "univnet.models"},
}


def imported(path: Path) -> Iterator[str]:
    """Yield the modules that a file imports anywhere in it, as ``package`` or ``univnet.part``."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            yield ".".join(name.split(".")[: 2 if name.startswith("univnet.") else 1])


def files_of(part: str) -> list[Path]:
    path = ROOT / "univnet" / part
    files = sorted(path.rglob("*.py")) if path.is_dir() else [path.with_suffix(".py")]
    assert files
    assert all(file.is_file() for file in files)
    return files


@pytest.mark.parametrize("part", ALLOWED)
def test_imports_point_one_way(part: str) -> None:
    allowed = ALLOWED[part] | sys.stdlib_module_names | {f"univnet.{part}"}
    wrong = [f"{file.name}: {name}" for file in files_of(part) for name in imported(file) if name not in allowed]
    assert not wrong


def test_the_reader_of_imports_sees_them(tmp_path: Path) -> None:
    source = tmp_path / "x.py"
    source.write_text("import a.b\nfrom univnet.gan.updates import c\nfrom univnet import d\ndef f():\n  import e\n")
    assert sorted(imported(source)) == ["a", "e", "univnet.d", "univnet.gan"]


def test_every_file_can_be_read_in_one_sitting() -> None:
    listed = subprocess.run(["git", "ls-files", "univnet"], cwd=ROOT, capture_output=True, text=True, check=True)
    files = [ROOT / line for line in listed.stdout.splitlines() if line.endswith(".py")]
    files = [file for file in files if file.exists()]
    assert files
    assert not [file for file in files if len(file.read_text().splitlines()) > 400]
