"""Resuming within an epoch with PyTorch's own ``DataLoader`` goes on where the run stood."""

from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import SaveAt, Stream, ToyGAN, quiet_trainer, toy_data, weights
from torch.utils.data import DataLoader

from univnet.gan import Updates


class Seen(ToyGAN):
    def __init__(self) -> None:
        super().__init__(Updates(2), Updates(3))
        self.batches: list[torch.Tensor] = []

    def generate(self, batch: Any) -> torch.Tensor:
        self.batches.append(batch[0])
        return super().generate(batch)


class SaveAtOrBetween(SaveAt):
    """A half is the time between two epochs."""

    def on_train_epoch_start(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch - 0.5:
            trainer.save_checkpoint(self.path)


def loader(**how: Any) -> DataLoader:
    if how.pop("seeded", False):
        how["generator"] = torch.Generator().manual_seed(5)
    return DataLoader(toy_data(40), batch_size=4, **how)


@pytest.mark.parametrize(
    ("how", "stop"),
    [
        *((how, stop) for how in ({}, {"shuffle": True, "seeded": True}) for stop in (3, 9, 9.5, 13)),
        ({"shuffle": True, "seeded": True, "num_workers": 1}, 13),  # once: starting processes takes time
    ],
)
def test_it_goes_on_where_it_stood(how: dict[str, Any], stop: float, tmp_path: Path) -> None:
    whole, resumed = Seen(), Seen()
    save = SaveAtOrBetween(tmp_path / "x.ckpt", stop)
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[save]).fit(whole, loader(**how))
    quiet_trainer(tmp_path, max_epochs=3).fit(resumed, loader(**how), ckpt_path=save.path, weights_only=True)
    assert torch.equal(torch.cat(resumed.batches), torch.cat(whole.batches[int(stop) + 1 :]))
    assert torch.equal(weights(resumed), weights(whole))


@pytest.mark.parametrize("make", [lambda: loader(shuffle=True), lambda: DataLoader(Stream(), 4)])
def test_what_cannot_go_on_says_so(make: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save = SaveAtOrBetween(tmp_path / "x.ckpt", 3)
    quiet_trainer(tmp_path, callbacks=[save]).fit(Seen(), make())
    quiet_trainer(tmp_path).fit(Seen(), make(), ckpt_path=save.path, weights_only=True)
    assert "this epoch begins again" in caplog.text
