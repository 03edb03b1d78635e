"""The smallest real GANs, in float64, on which the techniques are proved."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from univnet.gan import GANModule, SharedForward, Updates


class ToyGAN(GANModule):
    """Learn y from x by least squares, helped by a least-squares discriminator on (x, y)."""

    def __init__(
        self,
        generator: Updates | None = None,
        discriminator: Updates | None = None,
        optimizer: str = "adam",
        noise: float = 0.0,
        lr: tuple[float, float] = (1e-2, 2e-2),
        dtype: torch.dtype = torch.float64,
        schedulers: Any = None,
    ) -> None:
        super().__init__(generator, discriminator)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.generator = nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 2)).to(dtype)
            self.discriminator = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
        self.optimizer, self.noise, self.lr, self.schedulers = optimizer, noise, lr, schedulers

    def generate(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        x, _ = batch
        return self.generator(x + self.noise * torch.randn_like(x))

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        x, y = batch
        real_score, fake_score = (self.discriminator(torch.cat([x, z], 1)) for z in (y, fake))
        real, fool = (1 - real_score).square().mean(), fake_score.square().mean()
        return {"loss": real + fool, "real": real, "fake": fool}

    def generator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        x, y = batch
        adversarial = (1 - self.discriminator(torch.cat([x, fake], 1))).square().mean()
        l2 = (fake - y).square().mean()
        return {"loss": adversarial + 2.5 * l2, "adversarial": adversarial, "l2": l2}

    def configure_optimizers(self) -> Any:
        make = {
            "sgd": lambda p, lr: torch.optim.SGD(p, lr),
            "momentum": lambda p, lr: torch.optim.SGD(p, lr, momentum=0.9),
            "adam": lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.5, 0.9)),
            "fused": lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.5, 0.9), fused=True),
            "foreach": lambda p, lr: torch.optim.AdamW(p, lr, betas=(0.5, 0.9), foreach=True),
        }[self.optimizer]
        optimizers = [
            make(network.parameters(), lr)
            for network, lr in zip((self.generator, self.discriminator), self.lr, strict=True)
        ]
        return optimizers if self.schedulers is None else self.schedulers(*optimizers)


class SharedToyGAN(ToyGAN):
    """The same, helped by two discriminators of y alone that run once on the fakes for both players."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            parts = {name: nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)) for name in "ab"}
            self.discriminator = nn.ModuleDict(parts).double()
        self.judge = SharedForward(
            lambda fake: {"loss": (1 - fake).square().mean()},
            lambda real, fake: {"loss": (1 - real).square().mean() + fake.square().mean()},
        )

    def generator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        judged = self.judge.generator_terms(dict(self.discriminator.items()), fake, batch[1])
        return {"loss": judged["a"]["loss"] + judged["b"]["loss"] + 2.5 * (fake - batch[1]).square().mean()}

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        judged = self.judge.discriminator_terms(dict(self.discriminator.items()), fake, batch[1])
        return {"loss": judged["a"]["loss"] + judged["b"]["loss"]}


def toy_data(examples: int = 40, dtype: torch.dtype = torch.float64) -> TensorDataset:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(examples, 3, generator=generator, dtype=dtype)
    y = torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1)
    return TensorDataset(x, y)


class Stream(IterableDataset):
    """The same examples, of which nobody knows the number."""

    def __init__(self, examples: int = 40) -> None:
        self.examples = examples

    def __iter__(self) -> Iterator[Any]:
        return iter(toy_data(self.examples))


def toy_loader(examples: int = 40, batch_size: int = 4, dtype: torch.dtype = torch.float64) -> DataLoader:
    return DataLoader(toy_data(examples, dtype), batch_size=batch_size)


def quiet_trainer(folder: Any = None, **kwargs: Any) -> L.Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "default_root_dir": folder,
        "max_epochs": 1,
    }
    return L.Trainer(**(defaults | kwargs))


def weights(module: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in module.parameters()])


def by_hand(
    gan: ToyGAN,
    batches: list[Any],
    settings: dict[str, Updates],
    epochs: int = 1,
    poison: Any = lambda player, micro_batch: 1.0,
) -> dict[str, list[bool]]:
    """Train ``gan`` in plain PyTorch, to the definitions and by other means than the package's.

    Gradients come from ``torch.autograd.grad``, windows are lists of them, clipping is one division. Returns, for
    each player, whether each window's update was made.
    """
    networks = {"generator": gan.generator, "discriminator": gan.discriminator}
    parameters = {name: list(network.parameters()) for name, network in networks.items()}
    optimizers = dict(zip(networks, gan.configure_optimizers(), strict=True))
    made: dict[str, list[bool]] = {name: [] for name in networks}
    micro_batch = 0
    for epoch in range(epochs):
        windows: dict[str, list[Any]] = {name: [] for name in networks}
        for index, batch in enumerate(batches):
            fake = gan.generate(batch)
            losses = {
                "generator": gan.generator_loss(batch, fake)["loss"],
                "discriminator": gan.discriminator_loss(batch, fake.detach())["loss"],
            }
            for name, loss in losses.items():
                loss = loss * poison(name, micro_batch)
                windows[name].append(torch.autograd.grad(loss, parameters[name], retain_graph=True))
            for name, window in windows.items():
                if len(window) < settings[name].accumulate_at(epoch) and index < len(batches) - 1:
                    continue
                grads = [sum(each) / len(window) for each in zip(*window, strict=True)]
                norm = torch.cat([g.flatten() for g in grads]).norm()
                made[name].append(bool(norm.isfinite()))
                limit = settings[name].clip_norm
                if norm.isfinite():
                    for p, grad in zip(parameters[name], grads, strict=True):
                        p.grad = grad * (limit / (norm + 1e-6)) if limit and norm > limit else grad  # as torch clips
                    optimizers[name].step()
                window.clear()
            micro_batch += 1
    return made


class SaveAt(L.Callback):
    """Save a checkpoint at the end of a micro-batch, counted over all epochs from 0."""

    def __init__(self, path: Path, batch: float) -> None:
        self.path, self.batch = path, batch

    def on_train_batch_end(self, trainer: Any, *args: Any) -> None:
        if trainer.fit_loop.total_batch_idx == self.batch:
            trainer.save_checkpoint(self.path)
