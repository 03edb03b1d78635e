"""What both averages share: how a run may end, and how mistakes are told."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.averages import OnePlayer, Validated, Watch, fed, trained
from support.state import assert_equal_leaves
from support.toy import ToyGAN, quiet_trainer, toy_loader, weights

from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging, Updates, averaged_weights


class Stop(Callback):
    """Ends a run in the middle of its fourth epoch."""

    def __init__(self, how: str) -> None:
        self.how = how

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == 35:  # two updates after the epoch's beginning
            if self.how == "stop":
                trainer.should_stop = True
            else:
                raise {"exception": RuntimeError, "interrupt": KeyboardInterrupt}[self.how]("now")


@pytest.mark.parametrize("how", ["stop", "exception", "interrupt", "max_steps"])
def test_an_early_end_keeps_the_average(how: str, tmp_path: Path) -> None:
    swa, watch = StochasticWeightAveraging(0.05, swa_epoch_start=2, annealing_epochs=2), Watch()
    callbacks = [swa, watch] + [Stop(how)] * (how != "max_steps")
    limit = {"max_steps": 14} if how == "max_steps" else {}
    trainer = quiet_trainer(tmp_path, max_epochs=9, callbacks=callbacks, **limit)
    gan = ToyGAN(Updates(3), Updates(2))
    if how in ("exception", "interrupt"):
        with pytest.raises((RuntimeError, SystemExit)):
            trainer.fit(gan, toy_loader())
    else:
        trainer.fit(gan, toy_loader())
    last = [watch.updates[-1]] if how in ("stop", "max_steps") else []
    assert len(watch.updates) == 14
    assert_equal_leaves(swa.averaged, fed([watch.updates[7], watch.updates[11], *last]))
    assert torch.equal(weights(gan.generator), weights(watch.updates[-1]))
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    assert_equal_leaves(averaged_weights(torch.load(tmp_path / "a.ckpt", weights_only=True)), swa.averaged)


def test_early_stopping_and_an_exception_in_validation(tmp_path: Path) -> None:
    class Fails(Validated):
        def validation_step(self, batch: Any, batch_idx: int) -> None:
            super().validation_step(batch, batch_idx)
            if self.current_epoch == 2:
                raise RuntimeError("now")

    swa, ema = StochasticWeightAveraging(0.05, swa_epoch_start=2), ExponentialMovingAverage(0.9)
    stopping = EarlyStopping("val/l2", min_delta=10.0, patience=1)
    _, watch, trainer = trained(tmp_path, [swa, stopping], Validated())
    assert trainer.current_epoch == 2
    assert_equal_leaves(swa.averaged, fed(watch.epochs[1:]))
    gan = Fails()
    with pytest.raises(RuntimeError, match="now"):
        trained(tmp_path, [watch := Watch(), ema], gan)
    assert torch.equal(weights(gan.generator), weights(watch.updates[-1]))
    assert ema.n_averaged == 30


def test_an_average_of_nothing_is_refused(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=5)
    gan, _, trainer = trained(tmp_path, swa, Validated(), max_epochs=2)
    for get in (lambda: swa.averaged, lambda: swa.apply(gan)):
        with pytest.raises(ValueError, match="StochasticWeightAveraging of the generator has no updates yet"):
            get()
    trainer.save_checkpoint(tmp_path / "a.ckpt")
    checkpoint = torch.load(tmp_path / "a.ckpt", weights_only=True)
    assert averaged_weights(checkpoint) is None
    with pytest.raises(ValueError, match="swa average of the generator has no updates yet"):
        averaged_weights(checkpoint, kind="swa")


def test_all_mistakes_at_once() -> None:
    with pytest.raises(MisconfigurationException) as refused:
        StochasticWeightAveraging([0.2, 1], swa_epoch_start=-1, annealing_strategy="x", every_n_updates=0)  # type: ignore
    for part in (
        "positive float, or a list of positive floats",
        ">0 integer or a float between 0 and 1",
        "'x'",
        "every_n_updates must be at least 1",
    ):
        assert part in str(refused.value)
    for start in (0, 1.5):
        with pytest.raises(MisconfigurationException, match=">0 integer or a float between 0 and 1"):
            StochasticWeightAveraging(0.1, swa_epoch_start=start)
    with pytest.raises(MisconfigurationException, match=r"decay .* update_every_n_steps .* warmup_gamma"):
        ExponentialMovingAverage(1.5, update_every_n_steps=0, warmup_gamma=-1)


def test_what_does_not_fit_the_module_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MisconfigurationException, match=r"no player 'critic' .* generator, discriminator"):
        trained(tmp_path, ExponentialMovingAverage(player="critic"))
    with pytest.raises(MisconfigurationException, match="2 rates, but the generator's optimizer 1 groups"):
        trained(tmp_path, StochasticWeightAveraging([0.1, 0.2]))
    with pytest.raises(MisconfigurationException, match="needs an end of training"):
        trained(tmp_path, StochasticWeightAveraging(0.1), max_epochs=-1)
    with pytest.raises(MisconfigurationException, match="OnePlayer has no player 'generator'"):
        quiet_trainer(tmp_path, callbacks=[ExponentialMovingAverage()]).fit(OnePlayer(), toy_loader())
