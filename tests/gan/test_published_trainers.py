"""Nine published GAN trainers on ``GANModule`` equal their originals' loops written out by hand."""

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback
from support import PROGRAMS
from support.gans import GANS, examples
from support.loops import by_hand
from support.state import assert_same
from support.toy import SaveAt, quiet_trainer, weights

from univnet.data import EpochSampler, ResumableDataLoader
from univnet.gan import ExponentialMovingAverage

WHOLE = list(torch.utils.data.DataLoader(examples(), batch_size=4))


def loader() -> ResumableDataLoader:
    half = torch.utils.data.Subset(examples(), range(48))
    return ResumableDataLoader(half, 4, EpochSampler(half, shuffle=False))


@pytest.mark.parametrize("k", [1, 2])
@pytest.mark.parametrize("name", GANS)
def test_it_is_the_original_loop(name: str, k: int, tmp_path: Path) -> None:
    """24 micro-batches in two epochs; the average of the generator's weights too."""
    ours, theirs = GANS[name](k), GANS[name](k)
    average = ExponentialMovingAverage(0.9) if name == "StyleGAN2" else None
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[average] if average else []).fit(ours, loader())
    hand = by_hand(theirs, [[batch] for batch in WHOLE[:12]], k, 2)
    torch.testing.assert_close(weights(ours), weights(theirs), rtol=1e-12, atol=1e-14)
    assert ours.updates["discriminator"].steps == hand.updates["discriminator"]
    assert not torch.equal(weights(ours), weights(GANS[name](k)))
    if average:
        averaged = torch.cat([each.flatten() for each in average.averaged.values()])
        torch.testing.assert_close(averaged, torch.cat([each.flatten() for each in hand.average]), rtol=1e-12, atol=0)


@pytest.mark.parametrize("batch", [6])
@pytest.mark.parametrize("name", GANS)
def test_it_resumes_inside_a_window_bit_for_bit(name: str, batch: int, tmp_path: Path) -> None:
    def final(checkpoint: Path | None, *callbacks: Callback) -> dict[str, Any]:
        gan = GANS[name](3)
        trainer = quiet_trainer(tmp_path, max_epochs=2, callbacks=list(callbacks))
        trainer.fit(gan, loader(), ckpt_path=checkpoint, weights_only=True)
        optimizers = [each.state_dict() for each in trainer.optimizers]
        players = {player.name: player.state_dict() for player in gan._everyone.values()}
        return {"weights": gan.state_dict(), "optimizers": optimizers, "players": players}

    whole = final(None, SaveAt(tmp_path / "open.ckpt", batch))
    assert_same(final(tmp_path / "open.ckpt"), whole)


def test_two_ranks_are_the_loop_over_their_shards(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, PROGRAMS / "gans_ddp_run.py", tmp_path],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    shards = [list(pair) for pair in zip(WHOLE[::2], WHOLE[1::2], strict=True)]
    for name, kind in GANS.items():
        theirs = kind(2)
        concatenated = [[tuple(map(torch.cat, zip(*pair, strict=True)))] for pair in shards]
        # Each rank's spectral norm iterates once per forward, as does one on the concatenated batch.
        by_hand(theirs, concatenated if name == "HingeSpectral" else shards, 2, 2)
        ranks = [torch.load(tmp_path / f"{name}{rank}.pt", weights_only=True) for rank in (0, 1)]
        assert torch.equal(*ranks), name
        torch.testing.assert_close(
            ranks[0], weights(theirs), rtol=1e-12, atol=1e-14, msg=partial("{}: {}".format, name)
        )
