"""Which weights are averaged: effective ones under weight norm, tied ones, half-precision ones."""

from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from support.averages import Validated, trained
from support.toy import ToyGAN, quiet_trainer, toy_loader
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from univnet.gan import ExponentialMovingAverage, StochasticWeightAveraging
from univnet.models import Generator


def small_generator() -> Generator:
    torch.manual_seed(0)
    return Generator(n_mels=4, noise_channels=4, channels=4, strides=(2, 2), dilations=(1, 3), predictor_channels=4)


class Vocoder(ToyGAN):
    """A real UnivNet generator in the toy's place."""

    def __init__(self) -> None:
        super().__init__()
        self.generator, self.seen = small_generator(), list[dict[str, Tensor]]()

    def generate(self, batch: Any) -> Tensor:
        torch.manual_seed(3)
        return self.generator(torch.randn(2, 4, 6)).mean(-1).double().expand(2, 2)

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return (fake - 0.5).square().mean()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return self.discriminator(torch.cat([batch[0][:2], fake], 1)).square().mean()

    def on_train_epoch_end(self) -> None:
        super().on_train_epoch_end()
        self.seen.append(plain(self.generator).state_dict())

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        self.output = self.generator(*probe())


def plain(generator: Generator) -> Generator:
    copy = small_generator()
    copy.load_state_dict(generator.state_dict())
    copy.remove_weight_norm()
    return copy


def probe() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(7)
    return torch.randn(1, 4, 9, generator=generator), torch.randn(1, 4, 9, generator=generator)


def test_effective_weights_are_averaged(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=1, annealing_epochs=0)
    gan, swa_only = Vocoder(), plain(small_generator())
    quiet_trainer(tmp_path, max_epochs=3, callbacks=[swa]).fit(gan, toy_loader(8), toy_loader(4))
    mean = {name: torch.stack([w[name] for w in gan.seen]).mean(0) for name in gan.seen[0]}
    with torch.no_grad():
        swa_only.load_state_dict(swa.averaged)
        by_average = swa_only(*probe())
        swa_only.load_state_dict(mean)
        by_mean = swa_only(*probe())
        swa_only.load_state_dict(gan.seen[-1])
        assert (swa_only(*probe()) - by_mean).abs().max() > 1e-4  # they do differ
        assert (by_average - by_mean).abs().max() < 1e-6
        assert (gan.output - by_mean).abs().max() < 1e-6  # validation's, by weight norm
        swa.apply(gan)
        assert (gan.generator(*probe()) - by_mean).abs().max() < 1e-6
    parameters = dict(gan.generator.named_parameters())
    assert all(parameters[name].requires_grad for name in parameters)


def test_g_and_v_are_averaged_on_demand(tmp_path: Path) -> None:
    swa = StochasticWeightAveraging(0.05, swa_epoch_start=1, weights="parameters")
    gan = Vocoder()
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[swa]).fit(gan, toy_loader(8), toy_loader(4))
    gan.generator.load_state_dict(swa.averaged)
    assert (gan.output - gan.generator(*probe())).abs().max() < 1e-6


def test_a_parametrization_that_cannot_take_an_average_is_refused(tmp_path: Path) -> None:
    gan = ToyGAN()
    spectral_norm(gan.generator[0])
    weight_norm(gan.generator[2])
    with pytest.raises(MisconfigurationException, match=r"parametrization of 0\.weight cannot .* weights='parameters'"):
        quiet_trainer(tmp_path, callbacks=[ExponentialMovingAverage()]).fit(gan, toy_loader())
    ema = ExponentialMovingAverage(weights="parameters")
    quiet_trainer(tmp_path, callbacks=[ema]).fit(gan, toy_loader())
    gan.generator.load_state_dict(ema.averaged)


def test_tied_weights_survive_validation(tmp_path: Path) -> None:
    gan = Validated()
    gan.generator = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 2)).double()
    gan.generator[1].weight = gan.generator[0].weight
    ema = ExponentialMovingAverage(0.9)
    quiet_trainer(tmp_path, max_epochs=2, callbacks=[ema]).fit(gan, toy_loader(), toy_loader(4))
    assert gan.generator[1].weight is gan.generator[0].weight
    assert torch.equal(ema.averaged["0.weight"], ema.averaged["1.weight"])
    assert not torch.equal(ema.averaged["0.weight"], gan.generator[0].weight)


def test_half_precision_is_averaged_in_single(tmp_path: Path) -> None:
    ema = ExponentialMovingAverage(0.999)
    gan, _, _ = trained(tmp_path, ema, Validated(dtype=torch.bfloat16), precision="bf16-true")
    assert {value.dtype for value in ema.averaged.values()} == {torch.float32}
    assert gan.generator[0].weight.dtype == torch.bfloat16
