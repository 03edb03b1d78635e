"""The blocks of docs/techniques.md, run on a small model, and the script that makes its pictures, at a tiny size."""

import shlex
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import yaml
from lightning.pytorch import Trainer
from support import pages
from support.small import small_univnet, write_config
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch.optim import AdamW

from univnet import AudioDataModule
from univnet.cli import main
from univnet.cli.training import TrainingCLI
from univnet.gan import CyclicalLR, ExponentialMovingAverage, Tuner, Updates

PAGE = "techniques.md"


def written_in(*languages: str) -> list[str]:
    return [code for language, code in pages.blocks(PAGE) if language in languages]


@pytest.fixture
def place(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 10, demo)
    return tmp_path


def test_it_has_every_language_and_links_to_what_exists() -> None:
    assert {language for language, _ in pages.blocks(PAGE)} == {"yaml", "python", "sh"}
    assert all((pages.DOCS / path).exists() for path in pages.links(PAGE))
    assert all(path.stat().st_size <= 60_000 for path in pages.pictures(PAGE))


def test_its_yaml_is_taken_and_trains(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(pages.DOCS))
    overlays = []
    for index, text in enumerate(written_in("yaml")):
        Path(f"{index}.yaml").write_text(text)
        overlays += ["--config", f"{index}.yaml"]
    cli = TrainingCLI(args=["--config", "small.yaml", *overlays], run=False)
    generator, discriminator = (player.settings for player in cli.model.updates.values())
    assert (generator.accumulate, type(generator.clip_norm).__name__) == ({0: 8, 4: 4}, "MedianLimit")
    assert (discriminator.accumulate, discriminator.clip_value, discriminator.max_nonfinite) == (2, 0.5, 20)
    main(["fit", "--config", "small.yaml", *overlays, "--trainer.max_steps", "2"])
    [last] = place.glob("runs/small/*/checkpoints/last.ckpt")
    checkpoint = torch.load(last, weights_only=True)
    assert checkpoint["averaged"]["generator"].keys() >= {"ema"}
    assert 1e-5 < checkpoint["optimizer_states"][0]["param_groups"][0]["lr"] < 1.0001e-5  # a cycle begins at base_lr
    assert checkpoint["optimizer_states"][1]["param_groups"][0]["lr"] == 1e-4


def test_its_commands_run(place: Path) -> None:
    quick = {"find-lr": ["--num_training", "30", "--min_lr", "1e-5"], "find-batch-size": ["--max_val", "4"]}
    for line in "".join(written_in("sh")).splitlines():
        program, verb, *argv = shlex.split(line)
        assert program == "univnet"
        main([verb, *argv, *quick[verb]])
    mine, sized = (yaml.safe_load(Path(name).read_text()) for name in ("mine.yaml", "sized.yaml"))
    assert {"generator_lr", "discriminator_lr"} & mine["model"].keys()
    accumulate = {sized["model"][f"{player}_updates"]["accumulate"] for player in ("generator", "discriminator")}
    assert {sized["data"]["batch_size"] * k for k in accumulate} <= {6, 8}  # whole micro-batches come near 8
    assert mine["model"].items() <= sized["model"].items()


class Quick(Tuner):
    def lr_find(self, *args: Any, **options: Any) -> Any:
        return super().lr_find(*args, **options, num_training=14, min_lr=1e-4)

    def scale_batch_size(self, *args: Any, **options: Any) -> Any:
        return super().scale_batch_size(*args, **options, max_val=4)


def test_its_python_runs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = AudioDataModule(
        "speech", segment_length=2048, batch_size=1, num_workers=0, validation=1, epoch="files", check="header"
    )
    small = partial(quiet_trainer, place, max_epochs=-1, max_steps=4)
    names: dict[str, Any] = {
        **{each.__name__: each for each in (AdamW, CyclicalLR, ExponentialMovingAverage, Updates)},
        **{"Tuner": Quick, "MyGAN": small_univnet, "trainer": small(), "data": data},
        **{"MedianLimit": pages.script("median_limit", monkeypatch).MedianLimit, "torch": torch},
        "Trainer": partial(Trainer, accelerator="cpu", logger=False, enable_checkpointing=False),
    }
    monkeypatch.setattr(data, "mel", small_univnet().mel)
    for code in written_in("python"):
        exec(code, names)
    assert Path("rates.png").stat().st_size > 1000
    assert names["found"].suggestions().keys() == {"generator", "discriminator"}
    assert names["size"] == data.batch_size
    assert [type(each) for each in names["trainer"].callbacks if hasattr(each, "decay")] == [ExponentialMovingAverage]
    own = type("Own", (ToyGAN,), {"configure_optimizers": names["configure_optimizers"]})()
    trainer = quiet_trainer(place)
    trainer.fit(own, toy_loader())
    assert trainer.optimizers[0].param_groups[0]["lr"] > 1e-5
    assert trainer.optimizers[1].param_groups[0]["lr"] == 1e-4


@pytest.fixture
def tiny(place: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, with a small model and runs of a few updates."""
    script = pages.script("techniques", monkeypatch)
    for name, value in {"CONFIG": place / "small.yaml", "DATA": [], "PICTURES": place / "pictures"}.items():
        monkeypatch.setattr(script.small_runs, name, value)
    settings: dict[str, Any] = {"UPDATES": 10, "WINDOWS": {0: 3, 1: 1}, "EPOCHS": 2, "FAULTS": (3,)}
    settings["TEST"] = script.TEST | {"optimizer": "generator", "num_training": 14, "min_lr": 1e-4}
    settings["SEARCH"] = script.SEARCH | {"max_val": 2, "memory_budget": None}
    for name, value in settings.items():
        monkeypatch.setattr(script, name, value)
    return script


def test_its_runs_show_windows_and_the_guard(tiny: ModuleType) -> None:
    tiny.guard(Path("runs"))
    tiny.accumulation(Path("runs"))
    guarded, windows = (tiny.small_runs.Run(Path("runs", name)) for name in ("guard", "accumulation"))
    assert guarded.scalars("generator/nonfinite")[1].tolist() == [0, 0, 0, 1, 1]
    assert windows.scalars("generator/updates")[1].tolist() == list(range(1, 3 + 8 + 1))  # 8 = 3 + 3 + 2
    assert windows.scalars("discriminator/updates")[1].tolist() == [3, 6, 8, *range(9, 17)]


@pytest.mark.slow
def test_its_pictures_are_made_and_runs_are_kept(
    place: Path, tiny: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.main(Path("runs"))
    assert {path.name for path in place.glob("pictures/*.png")} == {path.name for path in pages.pictures(PAGE)}
    monkeypatch.setattr(tiny.small_runs, "univnet", None)
    tiny.main(Path("runs"))  # nothing is run again
