"""Validation sees the average, and leaves the weights in training bit for bit."""

from pathlib import Path

import torch
from support.averages import Validated, fed, trained
from support.resuming import MemoryLogger
from support.state import assert_equal_leaves
from support.toy import quiet_trainer, toy_loader, weights
from torch.optim.swa_utils import get_ema_multi_avg_fn

from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, averaged_weights


def test_validation_sees_the_average_and_leaves_the_raw_weights_bit_for_bit(tmp_path: Path) -> None:
    logger = MemoryLogger()
    ema = ExponentialMovingAverage(0.9, validate_raw=True)
    gan, watch, _ = trained(tmp_path, ema, Validated(noise=0.5), logger=logger, max_epochs=3)
    averages = [fed(watch.updates[: 10 * n], multi_avg_fn=get_ema_multi_avg_fn(0.9)) for n in (1, 2, 3)]
    for n, average in enumerate(averages):
        averaged, raw = gan.validated[4 * n], gan.validated[4 * n + 1]
        assert torch.equal(averaged, torch.cat([value.flatten() for value in average.values()]))
        assert torch.equal(raw, weights(watch.updates[10 * n + 9]))
    rows = [row for _, row in logger.rows if "val/l2" in row]
    assert len(rows) == 3
    assert all(row["val/l2"] != row["val_raw/l2"] for row in rows)

    alone = MemoryLogger()  # without any average, what is called raw above is plainly validated
    bare, _, _ = trained(tmp_path, [], Validated(noise=0.5), logger=alone, max_epochs=1)
    torch.manual_seed(1)
    bare, _, _ = trained(tmp_path, [], Validated(noise=0.5), logger=alone, max_epochs=3)
    torch.manual_seed(1)
    again, _, _ = trained(tmp_path, ema, Validated(noise=0.5), logger=logger, max_epochs=3)
    assert torch.equal(weights(bare), weights(again))
    assert [r["val/l2"] for _, r in alone.rows[-1:]] == [r["val_raw/l2"] for _, r in logger.rows[-1:]]


def test_a_checkpoint_is_validated_as_it_was(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.9)
    _, _, trainer = trained(tmp_path, ema, Validated())
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    fresh = quiet_trainer(tmp_path, callbacks=[ExponentialMovingAverage(0.9, validate_raw=True)])
    logged = fresh.validate(
        Validated(), toy_loader(8), ckpt_path=tmp_path / "a.ckpt", verbose=False, weights_only=True
    )[0]
    assert logged["val/l2"] == float(trainer.callback_metrics["val/l2"])
    assert logged["val_raw/l2"] != logged["val/l2"]
    assert not fresh.lightning_module.generator[0].weight.is_inference()
    raw = torch.load(tmp_path / "a.ckpt", weights_only=True)["state_dict"]
    assert_equal_leaves(dict(fresh.lightning_module.state_dict()), raw)


def test_both_averages_keep_to_themselves_and_swas_is_used_first(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=3, annealing_epochs=1)
    ema = ExponentialMovingAverage(0.9)
    gan, watch, trainer = trained(tmp_path, [ema, swa], Validated(), max_epochs=4)
    assert_equal_leaves(swa.averaged, fed(watch.epochs[2:]))
    assert_equal_leaves(ema.averaged, fed(watch.updates, multi_avg_fn=get_ema_multi_avg_fn(0.9)))
    flat = [torch.cat([v.flatten() for v in average.averaged.values()]) for average in (swa, ema)]
    assert torch.equal(gan.validated[-1], flat[0])
    first = fed(watch.updates[:10], multi_avg_fn=get_ema_multi_avg_fn(0.9))
    assert torch.equal(gan.validated[0], torch.cat([v.flatten() for v in first.values()]))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert_equal_leaves(averaged_weights(checkpoint), swa.averaged)
    assert_equal_leaves(averaged_weights(checkpoint, kind="ema"), ema.averaged)
    assert averaged_weights(checkpoint, "discriminator") is None


def test_validation_of_the_raw_weights_alone(tmp_path: Path) -> None:
    gan, watch, _ = trained(tmp_path, ExponentialMovingAverage(0.9, use_in_validation=False), Validated())
    assert torch.equal(gan.validated[-1], weights(watch.epochs[-1]))
