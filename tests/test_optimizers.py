"""The fused AdamW that is the default: it moves weights as plain AdamW does, and takes over from it."""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from support.small import GENERATOR, small_univnet
from support.toy import quiet_trainer
from torch.optim import AdamW

from univnet import Generator
from univnet.data import ResumableDataLoader
from univnet.module import _default_optimizer


class SaveAt(Callback):
    """Writes a checkpoint after the second micro-batch."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step == 2:
            trainer.save_checkpoint(self.path)


PLAIN = partial(AdamW, betas=(0.5, 0.9), fused=False)


def test_it_moves_weights_as_plain_adamw_does() -> None:
    torch.manual_seed(0)
    networks = Generator(**GENERATOR), Generator(**GENERATOR)
    networks[1].load_state_dict(networks[0].state_dict())
    optimizers = _default_optimizer(networks[0].parameters()), PLAIN(networks[1].parameters())
    assert optimizers[0].param_groups[0]["fused"]
    for step in range(20):
        for pair in zip(*(network.parameters() for network in networks), strict=True):
            pair[0].grad = torch.randn_like(pair[0])
            pair[1].grad = pair[0].grad.clone()
        for optimizer in optimizers:
            optimizer.param_groups[0]["lr"] = 1e-3 / (step + 1)  # as schedulers and range tests do
            optimizer.step()
    fused, plain = (torch.cat([p.detach().flatten() for p in network.parameters()]) for network in networks)
    assert (fused - plain).norm() < 1e-6 * plain.norm()


def test_a_device_without_it_gets_plain_adamw() -> None:
    optimizer = _default_optimizer([torch.nn.Parameter(torch.empty(1, device="meta"))])
    assert not optimizer.param_groups[0]["fused"]


@pytest.mark.parametrize("first", [None, PLAIN], ids=["fused then plain", "plain then fused"])
def test_either_goes_on_from_a_checkpoint_of_the_other(first: Any, batches: list[Any], tmp_path: Path) -> None:
    def fit(make: Any, updates: int, checkpoint: Path | None = None) -> torch.Tensor:
        module = small_univnet(generator_optimizer=make, discriminator_optimizer=make)
        trainer = quiet_trainer(max_steps=updates, callbacks=[SaveAt(tmp_path / "2.ckpt")] * (updates == 2))
        trainer.fit(module, ResumableDataLoader(batches, batch_size=None), ckpt_path=checkpoint, weights_only=True)
        return torch.cat([p.detach().flatten() for p in module.parameters()])

    whole = fit(first, 4)
    fit(first, 2)
    torch.manual_seed(1)  # the checkpoint brings the random numbers
    resumed = fit(PLAIN if first is None else None, 4, tmp_path / "2.ckpt")
    torch.testing.assert_close(resumed, whole, rtol=1e-5, atol=1e-6)
