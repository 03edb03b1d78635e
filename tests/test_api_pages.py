"""``make docs``: a page for every public name, and no warning."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest
from support import ROOT
from support.source import modules

PUBLIC = {  # what the packages list, read without importing them
    name.removesuffix(".__init__"): ast.literal_eval(node.value)
    for name, path in modules().items()
    if path.name == "__init__.py"
    for node in ast.parse(path.read_text()).body
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__"
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    # In a process of its own: the builder also runs what modules import for type checkers only.
    subprocess.run([sys.executable, ROOT / "docs" / "api.py", folder], check=True)
    return folder


def test_every_public_name_has_its_place_on_a_page(pages: Path) -> None:
    assert {"univnet", "univnet.gan", "univnet.models", "univnet.data"} <= PUBLIC.keys()
    for module, names in PUBLIC.items():
        text = (pages / f"{module.replace('.', '/')}.html").read_text()
        places = set(re.findall(r'<section id="(\w+)"', text))
        assert places == set(names), module


def test_every_page_is_of_a_public_module(pages: Path) -> None:
    found = {".".join(path.relative_to(pages).with_suffix("").parts) for path in pages.rglob("*.html")}
    beside = {
        "index",
        "univnet.losses",
        "univnet.models.lvc",
        "univnet.gan.tuner.tuner",
        "univnet.gan.tuner.batch_size",
    }
    assert found == PUBLIC.keys() | beside
    assert "location_variable_convolution" in (pages / "univnet" / "models" / "lvc.html").read_text()
    assert "target_batch" in (pages / "univnet" / "gan" / "tuner" / "batch_size.html").read_text()
