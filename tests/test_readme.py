"""What the README tells people to type, typed; and the sounds that it lets them hear."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from support import ROOT
from support.checkpoints import save, small_univnet
from support.pages import blocks, commands, run, script, text
from support.small import write_config
from torch import nn
from torch.nn.functional import softplus
from torch.optim import Adam
from torch.utils.data import DataLoader

import univnet
from univnet import Vocoder
from univnet.cli import main
from univnet.gan import Updates

README = text("README.md")
ROADS = ("Hear it", "Train on your folder", "Find learning rates and batch size", "Borrow `univnet.gan` for your GAN")


@pytest.fixture
def place(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder where ``configs/univnet_c16.yaml`` is a small model, and ``speech`` holds real recordings."""
    monkeypatch.chdir(tmp_path)
    config = yaml.safe_load(write_config(tmp_path, 6, demo).read_text())
    config["trainer"]["logger"]["init_args"] = {"save_dir": "runs", "name": "univnet_c16"}
    del config["data"]["root"]
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "univnet_c16.yaml").write_text(yaml.safe_dump(config))
    return tmp_path


def road(heading: str, place: Path) -> Any:
    """Return the block of a road, with the recordings where they are."""
    [block] = blocks("README.md", under=heading)
    return block._replace(code=block.code.replace("/path/to/recordings", str(place / "speech")))


def test_it_is_short_and_has_two_commands_and_four_roads() -> None:
    assert len(README.splitlines()) <= 150
    [two] = blocks("README.md", under="Two commands")
    assert commands(two.code) == [["make", "demo"], ["make", "test"]]
    assert [line for line in README.splitlines() if line.startswith("## ")][1:5] == [f"## {each}" for each in ROADS]
    assert all(len(block.lines) < 10 for heading in ROADS for block in blocks("README.md", under=heading))


def test_what_it_lets_hear_is_what_the_shipped_vocoder_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where this fails after another vocoder was put into data/pretrained: ``python docs/sounds.py``."""
    monkeypatch.chdir(ROOT)
    page = script("sounds", monkeypatch)
    assert page.SOURCE.name in text("data/pretrained/held_out.txt").split()
    page.main(tmp_path)
    assert (tmp_path / "univnet.png").read_bytes()[:4] == b"\x89PNG"
    for name, difference in (("recording.wav", 0), ("univnet.wav", 1e-3)):
        shipped, rate = sf.read(ROOT / "docs" / "sounds" / name)
        assert rate == 16000
        assert sf.info(ROOT / "docs" / "sounds" / name).subtype == "PCM_16"
        assert len(shipped) <= 5 * rate
        np.testing.assert_allclose(sf.read(tmp_path / name)[0], shipped, rtol=0, atol=difference)


def test_hear_it(tmp_path: Path, speech: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sf.write("recording.wav", speech[:16000], 16000, subtype="FLOAT")
    names: dict[str, Any] = {}
    run(road("Hear it", tmp_path), names)
    assert names["mel"].shape == (1, 80, 62)
    assert names["audio"].shape == (1, 1, 62 * 256)
    assert "`univnet synthesize --checkpoint demo --output out FILES`" in README
    main(["synthesize", "--checkpoint", "demo", "--output", "out", "recording.wav"])
    for spoken in ("spoken.wav", "out/recording.wav"):
        np.testing.assert_allclose(sf.read(spoken)[0], names["audio"][0, 0].numpy(), rtol=0, atol=1e-3)


def test_train_on_your_folder(place: Path, demo: Path) -> None:
    sf.write("recording.wav", *sf.read(sorted(demo.glob("*.flac"))[0]))
    block = road("Train on your folder", place)
    run(block, {}, {"fit": ["--trainer.val_check_interval", "1"]})
    assert list(Path("out").iterdir()) == [Path("out/recording.wav")]
    first = block._replace(code=block.code.splitlines()[0])
    run(first, {}, {"fit": ["--ckpt_path", "last", "--trainer.max_steps", "2"]})
    [last] = place.glob("runs/univnet_c16/version_*/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 2


def test_find_learning_rates_and_batch_size(place: Path) -> None:
    block = road("Find learning rates and batch size", place)
    run(block, {}, {"find-batch-size": ["--max_trials", "2"], "find-lr": ["--num_training", "24", "--min_lr", "1e-4"]})
    given, sized, mine = (
        yaml.safe_load(Path(name).read_text()) for name in ("configs/univnet_c16.yaml", "sized.yaml", "mine.yaml")
    )
    assert sized["data"]["batch_size"] > given["data"]["batch_size"]
    assert mine["data"]["batch_size"] == sized["data"]["batch_size"]
    assert {"generator_lr", "discriminator_lr"} & (mine["model"].keys() - sized["model"].keys())
    [last] = place.glob("runs/univnet_c16/version_*/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 1


def test_borrow_the_techniques(tmp_path: Path) -> None:
    import lightning

    generator, discriminator = nn.Linear(3, 2), nn.Linear(2, 1)
    before = [weight.clone() for weight in (*generator.parameters(), *discriminator.parameters())]
    names: dict[str, Any] = {"univnet": univnet, "Updates": Updates, "softplus": softplus, "Adam": Adam}
    names |= {"generator": generator, "discriminator": discriminator}
    run(road("Borrow `univnet.gan` for your GAN", tmp_path), names)
    data = [{"noise": torch.randn(3), "real": torch.randn(2)} for _ in range(20)]
    trainer = lightning.Trainer(
        max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=tmp_path
    )
    trainer.fit(names["gan"], DataLoader(data, batch_size=2))
    assert trainer.global_step == 4 * 2 + 3  # ten micro-batches: windows of 8 for four epochs, then of 4
    assert names["gan"].updates["discriminator"].steps == 25
    after = (*generator.parameters(), *discriminator.parameters())
    assert not any(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_weights_in_and_out_take_few_lines_which_run(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = blocks("README.md", "sh", "python", under="Weights in, weights out")
    assert len(found) == 5
    assert all(len(block.code.splitlines()) <= 5 for block in found)
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 4, demo)
    save(small_univnet(), tmp_path / "trained.ckpt", averaged=True)
    mel = torch.randn(1, 20, 60).clamp(-2, 2) - 5
    np.save("mel.npy", mel[0].numpy())
    played: list[torch.Tensor] = []
    names: dict[str, Any] = {"Vocoder": Vocoder, "mel": mel, "play": played.append}
    for block in found:
        run(block, names)
    torch.testing.assert_close(torch.cat(played, 2), names["vocoder"](mel), rtol=0, atol=1e-5)
    assert torch.equal(names["vocoder"](mel), Vocoder.from_checkpoint("trained.ckpt")(mel))
    [last] = tmp_path.glob("runs/small/*/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 1
    assert {path.name for path in Path().iterdir()} >= {"published", "vocoder.pt2", "out"}
    assert [path.name for path in Path("out").iterdir()] == ["mel.wav"]
