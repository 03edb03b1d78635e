"""The blocks of docs/training.md, run in their order on a small model."""

import re
from pathlib import Path
from typing import Any

import pytest
import soundfile as sf
import torch
import yaml
from support import ROOT
from support.pages import blocks, run, text
from support.runs import events
from support.small import write_config

PAGE = text("docs/training.md")
LITTLE = ["--data.validation_seconds", "0.2", "--trainer.val_check_interval", "1"]
LITTLE += ["--model.generator_updates.clip_norm", "1", "--model.discriminator_updates.clip_norm", "1"]


def test_the_configurations_it_names_exist() -> None:
    named = set(re.findall(r"configs/\w+\.yaml", PAGE))
    assert named == {str(path.relative_to(ROOT)) for path in ROOT.glob("configs/*.yaml")}


def test_the_page_runs(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    small = yaml.safe_load(write_config(tmp_path, 6, demo).read_text())
    del small["data"]["root"], small["data"]["validation"]
    Path("configs").mkdir()
    for name in ("univnet_c16", "univnet_c32"):
        small["trainer"]["logger"]["init_args"] = {"save_dir": "runs", "name": name}
        Path(f"configs/{name}.yaml").write_text(yaml.safe_dump(small))
    Path("LibriTTS").mkdir()  # a hundred files for validation, and one to train on
    audio, rate = sf.read(sorted(demo.glob("*.flac"))[0])
    for number in range(101):
        sf.write(f"LibriTTS/{number}.wav", audio[8000:12096], rate)
    sf.write("mine.wav", audio[:16000], rate)

    names: dict[str, Any] = {"mel": torch.randn(1, 20, 30).clamp(-2, 2) - 5}
    for block in blocks("docs/training.md", "sh", "python"):
        if block.language == "python":
            [best] = tmp_path.glob("runs/univnet_c16/version_0/checkpoints/best.ckpt")
            Path("best.ckpt").write_bytes(best.read_bytes())
        updates = "4" if "--ckpt_path last" in block.code else "2"
        given = block._replace(code=block.code.replace("/path/to/recordings", "speech"))
        run(given, names, {"fit": ["--trainer.max_steps", updates, *LITTLE]})

    assert names["audio"].shape == (1, 1, 30 * 256)
    assert names["mel"].shape == (1, 20, 30)
    assert list(Path("out").iterdir()) == [Path("out/mine.wav")]
    assert sorted(path.name for path in Path("runs").glob("*/*")) == ["version_0", "version_0"]  # it went on there
    last = torch.load("runs/univnet_c16/version_0/checkpoints/last.ckpt", weights_only=True)
    assert last["global_step"] == 4

    table = PAGE.split("| tags | what |")[1].split("\n\n")[0]
    promised = re.findall(r"^\| `(\w+)/…`", table, re.MULTILINE)
    logged = events(tmp_path / "runs" / "univnet_c16" / "version_0").Tags()
    found = {tag.partition("/")[0] for kind in ("scalars", "audio", "images") for tag in logged[kind]}
    assert len(promised) == 5
    assert found >= set(promised)
    for player in promised[:2]:
        told = {"loss", "lr", "gradient_norm", "clipped", "updates", "nonfinite"}
        assert {f"{player}/{name}" for name in told} <= set(logged["scalars"])
