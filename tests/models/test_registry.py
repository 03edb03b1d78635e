"""Which class a checkpoint's generator is of: what is registered, and nothing that the file could have run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from support.small import GENERATOR, MEL

from univnet import Generator, LogMelSpectrogram, Vocoder
from univnet.models import generator_class, generator_name, register_generator, registry


@pytest.fixture(autouse=True)
def _as_it_was(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setattr(registry, "_REGISTERED", dict(registry._REGISTERED))
        yield


def saved(path: Path, **about: object) -> Path:
    torch.manual_seed(0)
    state = {f"generator.{name}": weight for name, weight in Generator(**GENERATOR).state_dict().items()}
    config = {"generator": Generator(**GENERATOR).config, "mel": LogMelSpectrogram(**MEL).config}
    torch.save({"state_dict": state, "univnet": config | about}, path)
    return path


def test_a_checkpoint_that_names_no_class_is_of_the_generator(tmp_path: Path) -> None:
    old, new = (saved(tmp_path / "old.ckpt"), saved(tmp_path / "new.ckpt", generator_class="Generator"))
    mel = torch.randn(1, 20, 5)
    assert torch.equal(Vocoder.from_checkpoint(old)(mel), Vocoder.from_checkpoint(new)(mel))
    assert type(Vocoder.from_checkpoint(old).generator) is Generator


def test_a_class_is_known_by_its_name_or_another(tmp_path: Path) -> None:
    class Mine(Generator):
        pass

    assert generator_name(Mine).endswith("test_a_class_is_known_by_its_name_or_another.<locals>.Mine")
    assert register_generator(Mine) is Mine
    assert register_generator(name="twin")(type("Twin", (Generator,), {})).__name__ == "Twin"
    assert (generator_name(Mine), generator_name(generator_class("twin"))) == ("Mine", "twin")
    assert type(Vocoder.from_checkpoint(saved(tmp_path / "x.ckpt", generator_class="Mine")).generator) is Mine


def test_a_name_is_of_one_class_alone() -> None:
    other = type("Generator", (Generator,), {"__module__": "elsewhere"})
    with pytest.raises(ValueError, match=r"Generator is registered as 'Generator' already: .*elsewhere\.Generator"):
        register_generator(other)
    assert generator_class("Generator") is Generator
    again = type("Generator", (Generator,), {"__module__": Generator.__module__})  # as after a reload
    register_generator(again)
    assert generator_class("Generator") is again


@pytest.mark.parametrize("named", ["trap.Trap", "trap:Trap", "os.system", "", ["Generator"], {"a": 1}, None, 3])
def test_what_a_file_names_is_never_imported(named: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = saved(tmp_path / "hostile.ckpt", generator_class=named)
    with pytest.raises(ValueError, match=r"hostile\.ckpt: the generator's class .* is not known here .*: import the"):
        Vocoder.from_checkpoint(path)
    assert "trap" not in sys.modules
