"""Discriminators whose ``forward`` and ``parts`` stand in different classes."""

import pytest
from torch import Tensor, nn

from univnet.models import Discriminator
from univnet.models.checks import unfit_parts


class OtherForward:
    def forward(self, audio: Tensor) -> dict[str, Tensor]:
        return {}


class OtherParts:
    def parts(self) -> dict[str, nn.Module]:
        return {"all": nn.Identity()}


@pytest.mark.parametrize(
    ("bases", "is_run"),
    [
        ((Discriminator,), True),
        ((OtherParts, Discriminator), True),
        ((OtherParts, OtherForward, Discriminator), True),
        ((OtherForward, Discriminator), False),
        ((OtherForward, nn.Module), False),
        ((OtherForward, OtherParts, Discriminator), False),
        ((OtherParts, nn.Module), True),
        ((nn.Module,), False),
    ],
)
def test_a_forward_that_training_would_pass_by_is_named(bases: tuple[type, ...], is_run: bool) -> None:
    kind = type("Kind", bases, {})
    named = ["Kind defines forward() without parts(), which is what training runs: define both"]
    assert unfit_parts(kind(), False) == ([] if is_run else named)


def test_parts_without_features_are_named() -> None:
    class Mixed(Discriminator):
        def parts(self) -> dict[str, nn.Module]:
            return super().parts() | {"mine": nn.Identity()}

    assert unfit_parts(Discriminator(), True) == []
    assert unfit_parts(Mixed(), False) == []
    assert unfit_parts(Mixed(), True) == ["the loss needs features, but mine of the discriminator cannot return any"]
