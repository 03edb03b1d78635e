"""Nine published trainers, tiny and in float64, on ``GANModule``; ``loops.py`` has each as a plain loop.

A micro-batch is (x, y, z, w): a condition, a real example, and two draws of noise, so that runs can be compared.
"""

from collections.abc import Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.utils.data import TensorDataset

from univnet.gan import GANModule, Updates

Batch = tuple[Tensor, Tensor, Tensor, Tensor]


def examples(count: int = 96) -> TensorDataset:
    draw = torch.Generator().manual_seed(3)
    x, z, w = (torch.randn(count, 3, generator=draw, dtype=torch.float64) for _ in range(3))
    return TensorDataset(x, torch.stack([x[:, 0] * x[:, 1], x[:, 2].sin()], 1), z, w)


def mlp(inputs: int, outputs: int, norm: Any = lambda layer: layer) -> nn.Sequential:
    return nn.Sequential(norm(nn.Linear(inputs, 6)), nn.Tanh(), norm(nn.Linear(6, outputs))).double()


class Tiny(GANModule):
    """What the nine have in common: Adam for each player."""

    betas = 0.5, 0.9

    def __init__(self, k: int = 1, **options: Any) -> None:
        def updates(player: str) -> Updates:
            return Updates(**{"accumulate": k, **options.pop(player, {})})

        super().__init__(updates("generator"), updates("discriminator"), **options)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.build()

    def build(self) -> None:
        self.generator, self.discriminator = mlp(3, 2), mlp(2, 1)

    def weights_of(self, player: str) -> list[nn.Parameter]:
        names = self.networks.get(player, [player])
        return [p for name in names for p in self.get_submodule(name).parameters()]

    def configure_optimizers(self) -> Any:
        return [
            torch.optim.Adam(self.weights_of(player), rate, betas=self.betas)
            for player, rate in (("generator", 1e-2), ("discriminator", 2e-2))
        ]

    def generate(self, batch: Batch) -> Any:
        """From ``z`` for the generator, from ``w`` for the discriminator alone."""
        return self.generator(batch[2] if torch.is_grad_enabled() else batch[3])


def bce(score: Tensor, target: float) -> Tensor:
    return F.binary_cross_entropy_with_logits(score, torch.full_like(score, target))


class Basic(Tiny):
    """Goodfellow et al. 2014, as DCGAN's trainers have it: generator first, the discriminator on new fakes."""

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="generator_first", fresh_fakes=True)

    def generator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return bce(self.discriminator(fake), 1)

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return (bce(self.discriminator(batch[1]), 1) + bce(self.discriminator(fake), 0)) / 2


def gradient_penalty(critic: nn.Module, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    between = (share * real + (1 - share) * fake).requires_grad_()
    [slope] = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slope.norm(dim=1) - 1).square().mean()


class WGANGP(Tiny):
    """Gulrajani et al. 2017: five updates of the critic for one of the generator, gradient penalty 10."""

    betas = 0.0, 0.9

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="discriminator_first", fresh_fakes=True, generator={"every": 5})

    def generator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return -self.discriminator(fake).mean()

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        wasserstein = self.discriminator(fake).mean() - self.discriminator(batch[1]).mean()
        penalty = gradient_penalty(self.discriminator, batch[1], fake, batch[0][:, :1].sigmoid())
        return {"loss": wasserstein + 10 * penalty, "wasserstein": wasserstein, "penalty": penalty}


class HingeSpectral(Tiny):
    """SNGAN (Miyato et al. 2018): hinge loss, spectral norm, discriminator first."""

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="discriminator_first")

    def build(self) -> None:
        self.generator, self.discriminator = mlp(3, 2), mlp(2, 1, spectral_norm)

    def generator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return -self.discriminator(fake).mean()

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return F.relu(1 - self.discriminator(batch[1])).mean() + F.relu(1 + self.discriminator(fake)).mean()


class Pix2Pix(Tiny):
    """Isola et al. 2017: conditional, discriminator first, L1."""

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="discriminator_first")

    def build(self) -> None:
        self.generator, self.discriminator = mlp(3, 2), mlp(5, 1)

    def generate(self, batch: Batch) -> Tensor:
        return self.generator(batch[0])

    def generator_loss(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        adversarial = bce(self.discriminator(torch.cat([batch[0], fake], 1)), 1)
        l1 = F.l1_loss(fake, batch[1])
        return {"loss": adversarial + 10 * l1, "adversarial": adversarial, "l1": l1}

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        real, faked = (self.discriminator(torch.cat([batch[0], each], 1)) for each in (batch[1], fake))
        return (bce(real, 1) + bce(faked, 0)) / 2


class CycleGAN(Tiny):
    """Zhu et al. 2017: two generators in one player, and a pool from which the discriminators get older fakes."""

    networks: ClassVar = {"generator": ["to_b", "to_a"], "discriminator": ["judge_a", "judge_b"]}

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="generator_first")
        self.pool: dict[str, Tensor] = {}

    def build(self) -> None:
        self.to_b, self.to_a, self.judge_a, self.judge_b = mlp(2, 2), mlp(2, 2), mlp(2, 1), mlp(2, 1)

    def generate(self, batch: Batch) -> dict[str, Tensor]:
        return {"a": self.to_a(batch[2][:, :2]), "b": self.to_b(batch[1])}

    def generator_loss(self, batch: Batch, fake: dict[str, Tensor]) -> Tensor:
        a, b = batch[1], batch[2][:, :2]
        fool = (self.judge_a(fake["a"]) - 1).square().mean() + (self.judge_b(fake["b"]) - 1).square().mean()
        cycle = F.l1_loss(self.to_a(fake["b"]), a) + F.l1_loss(self.to_b(fake["a"]), b)
        return fool + 10 * cycle + 5 * (F.l1_loss(self.to_a(a), a) + F.l1_loss(self.to_b(b), b))

    def discriminator_loss(self, batch: Batch, fake: dict[str, Tensor]) -> Tensor:
        older, self.pool = self.pool or fake, fake
        return sum(
            (judge(real) - 1).square().mean() / 2 + judge(older[name]).square().mean() / 2
            for name, judge, real in (("a", self.judge_a, batch[1]), ("b", self.judge_b, batch[2][:, :2]))
        )

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint["pool"] = dict(self.pool)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_load_checkpoint(checkpoint)
        self.pool = checkpoint["pool"]


class ESRGAN(Tiny):
    """Wang et al. 2018: relativistic average losses; the generator first learns on L1 alone."""

    warm_up = 6

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="generator_first")

    def build(self) -> None:
        super().build()
        self.discriminator[2] = nn.Linear(6, 1, bias=False).double()  # a bias cancels in relativistic scores

    def generate(self, batch: Batch) -> Tensor:
        self.warming_up = self.global_step < self.warm_up
        return self.generator(batch[0])

    def generator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        l1 = F.l1_loss(fake, batch[1])
        if self.warming_up:
            return l1
        real, faked = self.discriminator(batch[1]).detach(), self.discriminator(fake)
        return l1 + 0.5 * bce(faked - real.mean(0, keepdim=True), 1)

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor | None:
        if self.warming_up:
            return None
        real, faked = self.discriminator(batch[1]), self.discriminator(fake)
        return (bce(real - faked.mean(0, keepdim=True), 1) + bce(faked - real.mean(0, keepdim=True), 0)) / 2


class HiFiGAN(Tiny):
    """Kong et al. 2020: discriminators first, feature matching, rates that fall per epoch."""

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="discriminator_first")

    def build(self) -> None:
        self.generator = mlp(3, 2)
        self.discriminator = nn.ModuleList([mlp(2, 1), mlp(2, 1)])

    def generate(self, batch: Batch) -> Tensor:
        return self.generator(batch[0])

    def judged(self, audio: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        for judge in self.discriminator:
            features = judge[1](judge[0](audio))
            yield judge[2](features), features

    def generator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        loss = 45 * F.l1_loss(fake, batch[1])
        for (score, features), (_, wanted) in zip(self.judged(fake), self.judged(batch[1]), strict=True):
            loss = loss + (1 - score).square().mean() + 2 * F.l1_loss(features, wanted)
        return loss

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        both = zip(self.judged(batch[1]), self.judged(fake), strict=True)
        return sum((1 - real).square().mean() + faked.square().mean() for (real, _), (faked, _) in both)

    def configure_optimizers(self) -> Any:
        optimizers = super().configure_optimizers()
        return optimizers, [torch.optim.lr_scheduler.ExponentialLR(each, 0.9) for each in optimizers]


class VQGAN(Tiny):
    """Esser et al. 2021: a code book, and an adversarial weight that the last layer's gradients decide."""

    networks: ClassVar = {"generator": ["encoder", "codes", "decoder"]}

    def __init__(self, k: int = 1) -> None:
        super().__init__(k, order="generator_first")

    def build(self) -> None:
        self.encoder, self.codes, self.decoder = mlp(3, 2), nn.Embedding(5, 2).double(), mlp(2, 2)
        self.discriminator = mlp(2, 1)

    def generate(self, batch: Batch) -> dict[str, Tensor]:
        code = self.encoder(batch[0])
        nearest = self.codes(torch.cdist(code, self.codes.weight).argmin(1))
        book = (nearest.detach() - code).square().mean() + 0.25 * (nearest - code.detach()).square().mean()
        return {"y": self.decoder(code + (nearest - code).detach()), "book": book}

    def generator_loss(self, batch: Batch, fake: dict[str, Tensor]) -> Tensor:
        distance, fool = F.l1_loss(fake["y"], batch[1]), -self.discriminator(fake["y"]).mean()
        last = self.decoder[2].weight
        near, adversarial = (torch.autograd.grad(each, last, retain_graph=True)[0].norm() for each in (distance, fool))
        weight = (near / (adversarial + 1e-4)).clamp(0, 1e4).detach()
        return distance + 0.8 * weight * fool + fake["book"]

    def discriminator_loss(self, batch: Batch, fake: dict[str, Tensor]) -> Tensor:
        return (F.relu(1 - self.discriminator(batch[1])).mean() + F.relu(1 + self.discriminator(fake["y"])).mean()) / 2


class StyleGAN2(Tiny):
    """Karras et al. 2020: discriminator first; R1 and path length are steps of their own, now and then."""

    betas = 0.0, 0.99

    def __init__(self, k: int = 1) -> None:
        lazy = {"generator": {"regularize_every": 4}, "discriminator": {"regularize_every": 3}}
        super().__init__(k, order="discriminator_first", fresh_fakes=True, **lazy)

    def generator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return F.softplus(-self.discriminator(fake)).mean()

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> Tensor:
        return F.softplus(-self.discriminator(batch[1])).mean() + F.softplus(self.discriminator(fake)).mean()

    def discriminator_regularizer(self, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
        real = batch[1].clone().requires_grad_()
        [slope] = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        r1 = slope.square().sum(1).mean()
        return {"loss": 5 * 3 * r1, "r1": r1}

    def generator_regularizer(self, batch: Batch, fake: Tensor) -> Tensor:
        noise = batch[3].clone().requires_grad_()
        [slope] = torch.autograd.grad(self.generator(noise).sum(), noise, create_graph=True)
        return 2 * 4 * (slope.norm(dim=1) - 0.5).square().mean()


GANS = {each.__name__: each for each in Tiny.__subclasses__()}
