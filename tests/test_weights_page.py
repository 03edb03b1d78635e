"""The blocks of docs/weights.md, run in their order."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.checkpoints import save, small_univnet
from support.pages import blocks, run
from support.small import write_config

from univnet import Vocoder
from univnet.audio import MelFormat

BLOCKS = blocks("docs/weights.md", "sh", "python")


def test_each_block_is_short() -> None:
    assert len(BLOCKS) == 7
    assert all(len(block.code.strip().splitlines()) <= 5 for block in BLOCKS)


def test_the_page_runs(tmp_path: Path, demo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_config(tmp_path, 4, demo)
    save(small_univnet(), tmp_path / "trained.ckpt", averaged=True)
    mel = torch.randn(1, 20, 60).clamp(-2, 2) - 5
    np.save("mel.npy", mel[0].numpy())
    np.save("long.npy", mel[0].repeat(1, 9).numpy())
    played: list[torch.Tensor] = []
    names: dict[str, Any] = {"Vocoder": Vocoder, "MelFormat": MelFormat, "mel": mel, "play": played.append}
    # What is published comes before what starts from it.
    for block in sorted(BLOCKS, key=lambda block: "--init_from" in block.code):
        run(block, names)
    torch.testing.assert_close(torch.cat(played, 2), names["vocoder"](mel), rtol=0, atol=1e-5)
    assert names["audio"].shape == (1, 1, 60 * 256)
    assert {path.name for path in Path().iterdir()} >= {"exported", "exported.pt2", "out", "out2", "published", "runs"}
