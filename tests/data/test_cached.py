"""A loader with a cache hands out what one without does."""

from itertools import islice
from pathlib import Path
from typing import Any

import pytest
import torch

from univnet import AudioDataModule, LogMelSpectrogram
from univnet.data import Augment

pytestmark = pytest.mark.filterwarnings("ignore:.*audio files are resampled.*")


def module(demo: Path, **options: Any) -> AudioDataModule:
    options = {"segment_length": 4096, "batch_size": 16, "num_workers": 0, "check": "header", "validation": 2} | options
    return AudioDataModule(str(demo), mel=LogMelSpectrogram(24000), **options)


@pytest.mark.parametrize("kind", ["folder", "memory"])
def test_the_same_crops_from_workers_and_after_resuming(kind: str, demo: Path, tmp_path: Path) -> None:
    augment = Augment(gain=(-12, 0), polarity=True, speeds=[0.9, 1.0, 1.1])
    options: dict[str, Any] = {"skip_silence": -40.0, "augment": augment, "seed": 3}
    cache = "memory" if kind == "memory" else str(tmp_path / "kept")
    plain, cached = module(demo, **options), module(demo, **options, cache=cache, num_workers=2)
    expected = [batch["context"] for batch in islice(plain.train_dataloader(), 7)]
    for batch, same in zip(islice(cached.train_dataloader(), 7), expected, strict=True):
        assert torch.equal(batch["context"], same)
    resumed = module(demo, **options, cache=cache).train_dataloader()
    resumed.load_state_dict({"epoch": 0, "position": 4, "items": len(resumed.dataset)})
    for batch, same in zip(islice(resumed, 3), expected[4:], strict=True):
        assert torch.equal(batch["context"], same)
    for batch, expected in zip(cached.val_dataloader(), plain.val_dataloader(), strict=True):
        assert torch.equal(batch["audio"], expected["audio"])


def test_mistakes_are_named(demo: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for cache in ("", str(tmp_path / "file")):
        with pytest.raises(ValueError, match="cache must be 'memory', the name of a folder, or None"):
            module(demo, cache=cache)
