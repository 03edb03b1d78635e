"""The nine trainers of ``gans.py`` as plain loops in their originals' order, by means other than the package's.

The losses are the classes' own; who moves when, on which fakes, with which weights, is written out here. A micro-batch
is a list of shards, whose losses' mean counts: one shard, or one per rank.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from support.gans import Batch, Tiny

Shards = list[Batch]


class ByHand:
    """Gradients by ``torch.autograd.grad``, windows as lists of them."""

    def __init__(self, gan: Tiny, k: int) -> None:
        optimizers = gan.configure_optimizers()
        self.schedulers = optimizers[1] if isinstance(optimizers[0], list) else []
        self.optimizers = optimizers[0] if self.schedulers else optimizers
        self.gan, self.k = gan, k
        self.windows: dict[str, list[Any]] = {"generator": [], "discriminator": []}
        self.updates = {"generator": 0, "discriminator": 0}
        self.average: list[Tensor] = []

    def learn(self, player: str, losses: list[Tensor], last: bool) -> bool:
        """Add to ``player``'s window; where it is full, or the epoch's last one, step. Return whether it did."""
        window, parameters = self.windows[player], self.gan.weights_of(player)
        window.append(torch.autograd.grad(sum(losses) / len(losses), parameters, allow_unused=True))
        if len(window) < self.k and not last:
            return False
        self.step(player, [None if g[0] is None else sum(g) / len(window) for g in zip(*window, strict=True)])
        window.clear()
        self.updates[player] += 1
        return True

    def blend(self) -> None:
        """Move the average of the generator's weights towards the present ones."""
        present = [p.detach().clone() for p in self.gan.weights_of("generator")]
        old = self.average or present
        self.average = [torch.lerp(a, p, 0.1) for a, p in zip(old, present, strict=True)]

    def step(self, player: str, gradients: Any) -> None:
        for parameter, gradient in zip(self.gan.weights_of(player), gradients, strict=True):
            parameter.grad = gradient
        self.optimizers[player == "discriminator"].step()

    def on_its_own(self, player: str, losses: list[Tensor]) -> None:
        """Make a step on a regularizer."""
        self.step(
            player, torch.autograd.grad(sum(losses) / len(losses), self.gan.weights_of(player), allow_unused=True)
        )


def unconditional(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """The basic GAN: the generator on new noise, then the discriminator on new fakes of the moved generator."""
    gan: Any = hand.gan
    hand.learn("generator", [gan.generator_loss(b, gan.generator(b[2])) for b in shards], last)
    hand.learn("discriminator", [gan.discriminator_loss(b, gan.generator(b[3]).detach()) for b in shards], last)


def critic_first(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """WGAN-GP: the critic on every micro-batch, the generator on every fifth."""
    gan: Any = hand.gan
    fakes = [gan.generator(b[3]).detach() for b in shards]
    hand.learn(
        "discriminator", [gan.discriminator_loss(b, f)["loss"] for b, f in zip(shards, fakes, strict=True)], last
    )
    if number % 5 == 0:
        hand.learn("generator", [gan.generator_loss(b, gan.generator(b[2])) for b in shards], last)
    elif last and hand.windows["generator"]:  # an open window closes with the epoch
        window = hand.windows["generator"]
        hand.step("generator", [sum(g) / len(window) for g in zip(*window, strict=True)])
        window.clear()


def discriminator_first(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """One forward of the generator; it then goes through the discriminator that has moved."""
    gan: Any = hand.gan
    fakes = [gan.generate(b) for b in shards]
    pairs = list(zip(shards, fakes, strict=True))
    hand.learn("discriminator", [gan.discriminator_loss(b, f.detach()) for b, f in pairs], last)
    hand.learn("generator", [loss_of(gan.generator_loss(b, f)) for b, f in pairs], last)
    if last:
        for scheduler in hand.schedulers:
            scheduler.step()


def generator_first(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """The discriminator gets the fakes from before the generator moved."""
    gan: Any = hand.gan
    fakes = [gan.generate(b) for b in shards]
    pairs = list(zip(shards, fakes, strict=True))
    hand.learn("generator", [gan.generator_loss(b, f) for b, f in pairs], last)
    detached = [(b, {k: v.detach() for k, v in f.items()}) for b, f in pairs]
    hand.learn("discriminator", [gan.discriminator_loss(b, f) for b, f in detached], last)


def cycle(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """As ``generator_first``, with a pool for every shard."""
    gan: Any = hand.gan
    pools = vars(gan).setdefault("pools", [{} for _ in shards])
    fakes = [gan.generate(b) for b in shards]
    hand.learn("generator", [gan.generator_loss(b, f) for b, f in zip(shards, fakes, strict=True)], last)
    losses = []
    for place, (batch, fake) in enumerate(zip(shards, fakes, strict=True)):
        now = {name: each.detach() for name, each in fake.items()}
        gan.pool, pools[place] = pools[place], now
        losses.append(gan.discriminator_loss(batch, now))
    hand.learn("discriminator", losses, last)


def relativistic(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """ESRGAN: L1 alone for the first updates."""
    gan: Any = hand.gan
    gan.warming_up = hand.updates["generator"] < gan.warm_up
    fakes = [gan.generator(b[0]) for b in shards]
    hand.learn("generator", [gan.generator_loss(b, f) for b, f in zip(shards, fakes, strict=True)], last)
    if not gan.warming_up:
        pairs = zip(shards, fakes, strict=True)
        hand.learn("discriminator", [gan.discriminator_loss(b, f.detach()) for b, f in pairs], last)


def style(hand: ByHand, shards: Shards, number: int, last: bool) -> None:
    """StyleGAN2: each player's step, and after its first, fourth, … a step on its regularizer."""
    gan: Any = hand.gan
    if hand.learn(
        "discriminator", [gan.discriminator_loss(b, gan.generator(b[3]).detach()) for b in shards], last
    ) and (hand.updates["discriminator"] % 3 == 1):
        hand.on_its_own("discriminator", [gan.discriminator_regularizer(b, None)["loss"] for b in shards])
    if hand.learn("generator", [gan.generator_loss(b, gan.generator(b[2])) for b in shards], last):
        if hand.updates["generator"] % 4 == 1:
            hand.on_its_own("generator", [gan.generator_regularizer(b, None) for b in shards])
        hand.blend()


def loss_of(losses: Any) -> Tensor:
    return losses["loss"] if isinstance(losses, dict) else losses


LOOPS: dict[str, Callable[[ByHand, Shards, int, bool], None]] = {
    "Basic": unconditional,
    "WGANGP": critic_first,
    "HingeSpectral": discriminator_first,
    "Pix2Pix": discriminator_first,
    "CycleGAN": cycle,
    "ESRGAN": relativistic,
    "HiFiGAN": discriminator_first,
    "VQGAN": generator_first,
    "StyleGAN2": style,
}


def by_hand(gan: Tiny, micro_batches: list[Shards], k: int, epochs: int) -> ByHand:
    """Train ``gan`` in place for ``epochs`` over ``micro_batches``."""
    hand, number = ByHand(gan, k), 0
    for _ in range(epochs):
        for place, shards in enumerate(micro_batches):
            number += 1
            LOOPS[type(gan).__name__](hand, shards, number, place == len(micro_batches) - 1)
    return hand
