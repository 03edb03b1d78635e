"""What the README tells people to type, typed."""

import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoints import save, small_univnet
from support.small import write_config
from torch import nn
from torch.utils.data import DataLoader

from univnet import Vocoder
from univnet.cli import main

README = Path(__file__).parents[1] / "README.md"


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(), re.DOTALL)


def trained(name: str, folder: Path) -> Any:
    names: dict[str, Any] = {"torch": torch}
    for block in blocks("python"):
        if "GAN(" in block:
            exec(block, names)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        gan = names[name]()
        gan.generator, gan.discriminator = nn.Linear(3, 2), nn.Linear(2, 1)
        data = [{"condition": torch.randn(3), "real": torch.randn(2)} for _ in range(20)]
        import lightning

        trainer = lightning.Trainer(
            max_epochs=5, accelerator="cpu", logger=False, enable_checkpointing=False, default_root_dir=folder
        )
        trainer.fit(gan, DataLoader(data, batch_size=2))
    assert trainer.global_step == 4 * 2 + 3  # ten micro-batches: windows of 8 for four epochs, then of 4
    assert gan.updates["discriminator"].steps == 25
    return gan


def test_another_gan_trains_and_the_faster_one_to_the_same_weights(tmp_path: Path) -> None:
    gan, faster = trained("MyGAN", tmp_path), trained("MyFasterGAN", tmp_path)
    for weight, same in zip(gan.parameters(), faster.parameters(), strict=True):
        torch.testing.assert_close(same, weight, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("path", re.findall(r"\]\((?!http|#)([^)]+)\)", README.read_text()))
def test_what_it_links_to_exists(path: str) -> None:
    assert (README.parent / path).exists()


def test_the_configurations_it_names_exist() -> None:
    named = set(re.findall(r"configs/\w+\.yaml", README.read_text()))
    assert named == {str(path.relative_to(README.parent)) for path in README.parent.glob("configs/*.yaml")}


def test_weights_in_and_out_take_few_lines_which_run(
    tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    section = README.read_text().split("## Weights in, weights out\n")[1].split("\n## ")[0]
    found = re.findall(r"```(sh|python)\n(.*?)```", section, re.DOTALL)
    assert len(found) == 5
    assert all(len(code.splitlines()) <= 5 for _, code in found)
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 4, demo)
    save(small_univnet(), tmp_path / "trained.ckpt", averaged=True)
    mel = torch.randn(1, 20, 60).clamp(-2, 2) - 5
    np.save("mel.npy", mel[0].numpy())
    played: list[torch.Tensor] = []
    names: dict[str, Any] = {"Vocoder": Vocoder, "mel": mel, "play": played.append}
    for language, code in found:
        if language == "python":
            exec(code, names)
            continue
        program, *argv = shlex.split(code)
        assert program == "univnet"
        main(argv)
    torch.testing.assert_close(torch.cat(played, 2), names["vocoder"](mel), rtol=0, atol=1e-5)
    assert torch.equal(names["vocoder"](mel), Vocoder.from_checkpoint("trained.ckpt")(mel))
    [last] = tmp_path.glob("runs/small/*/checkpoints/last.ckpt")
    assert torch.load(last, weights_only=True)["global_step"] == 1
    assert {path.name for path in Path().iterdir()} >= {"published", "vocoder.pt2", "out"}
    assert [path.name for path in Path("out").iterdir()] == ["mel.wav"]
