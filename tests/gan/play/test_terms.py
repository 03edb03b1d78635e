"""What a subclass returns is checked in its own words."""

from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor

from univnet.gan.play.terms import detached, named_terms

WRONG = {
    "a number": (0.5, TypeError, "discriminator_loss returned of type float: return a scalar tensor"),
    "a tuple": ((torch.ones(()), {}), TypeError, "discriminator_loss returned of type tuple"),
    "a vector": (torch.ones(3, requires_grad=True), ValueError, r"'loss' of shape \(3,\): it must be a scalar"),
    "no loss": (
        {"real": torch.ones(())},
        ValueError,
        r"returned \['real'\]: one term must be named",
    ),
    "a loss that is a number": ({"loss": 1.0}, TypeError, "returned a 'loss' that is of type float"),
    "a term that is text": (
        {"loss": torch.ones((), requires_grad=True), "x": "y"},
        TypeError,
        "'x' that is of type",
    ),
    "no gradient": (torch.ones(()), ValueError, "discriminator_loss returned a loss without gradient"),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_a_loss_may_not_return(case: str, tmp_path: Path) -> None:
    returned, error, message = WRONG[case]

    class Wrong(ToyGAN):
        def discriminator_loss(self, batch: Any, fake: Tensor) -> Any:
            return returned

    with pytest.raises(error, match=message):
        quiet_trainer(tmp_path).fit(Wrong(), toy_loader())


def test_terms_beside_the_loss_may_be_numbers() -> None:
    terms = named_terms({"loss": torch.ones(()), "share": 0.5}, "generator")
    assert terms["share"].item() == 0.5


class Lazy:
    def __init__(self, value: Tensor) -> None:
        self.value = value

    def detach(self) -> "Lazy":
        return Lazy(self.value.detach())


@dataclass
class Output:
    audio: Tensor
    name: str


def test_whatever_can_be_detached_is() -> None:
    grad = torch.ones(2, requires_grad=True)
    pair = namedtuple("pair", "a b")
    fake = detached({"t": (grad, [grad]), "p": pair(grad, 1), "l": Lazy(grad), "o": Output(grad, "x"), "n": None})
    held = [fake["t"][0], fake["t"][1][0], fake["p"].a, fake["l"].value, fake["o"].audio]
    assert not any(each.requires_grad for each in held)
    assert fake["p"].b == 1
    assert fake["o"].name == "x"


def test_what_cannot_is_refused(tmp_path: Path) -> None:
    class Hiding(ToyGAN):
        def generate(self, batch: Any) -> Any:
            return type("Code", (), {"value": super().generate(batch)})()

        def generator_loss(self, batch: Any, fake: Any) -> Any:
            return super().generator_loss(batch, fake.value)

    with pytest.raises(TypeError, match="generate returned of type Code, which cannot be detached"):
        quiet_trainer(tmp_path).fit(Hiding(), toy_loader())
