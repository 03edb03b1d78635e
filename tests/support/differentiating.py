"""A GAN whose losses differentiate and log."""

import torch
from torch import Tensor

from support.toy import ToyGAN


class Differentiating(ToyGAN):
    """A gradient penalty for the critic (R1), an adaptive weight (VQGAN) for the generator, and a log in between."""

    def generate(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        fake = super().generate(batch)
        self.log("fake", fake.mean())
        return fake

    def generator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        terms = super().generator_loss(batch, fake)
        last = self.generator[-1].weight
        norms = [torch.autograd.grad(terms[name], last, retain_graph=True)[0].norm() for name in ("l2", "adversarial")]
        weight = (norms[0] / (norms[1] + 1e-4)).detach()
        return {**terms, "loss": terms["l2"] + weight * terms["adversarial"], "weight": weight}

    def discriminator_loss(self, batch: tuple[Tensor, Tensor], fake: Tensor) -> dict[str, Tensor]:
        real = torch.cat(batch, 1).requires_grad_()
        [gradient] = torch.autograd.grad(self.discriminator(real).sum(), real, create_graph=True)
        penalty = gradient.square().sum(1).mean()
        return {"loss": super().discriminator_loss(batch, fake)["loss"] + 5 * penalty, "penalty": penalty}
