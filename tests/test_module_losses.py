"""The losses that `UnivNet` can be given: in its own training step, in YAML, and off by default."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from support.small import GENERATOR, MEL, MPD, MRD, RESOLUTIONS, write_config
from torch import Tensor, nn
from torch.utils.data import DataLoader

from univnet import Generator, LogMelSpectrogram, UnivNet
from univnet.cli.training import TrainingCLI
from univnet.gan import Updates
from univnet.losses import FeatureMatching, Hinge, LeastSquares, MultiResolutionSTFTLoss, MultiScaleMelLoss
from univnet.models import Discriminator, MultiPeriodDiscriminator, MultiResolutionSpectrogramDiscriminator

MEL_RESOLUTIONS = ((64, 16, 5), (256, 64, 20))


def small(**options: Any) -> UnivNet:
    torch.manual_seed(0)
    judges = Discriminator(MultiResolutionSpectrogramDiscriminator(**MRD), MultiPeriodDiscriminator(**MPD))
    stft = MultiResolutionSTFTLoss(RESOLUTIONS)
    return UnivNet(Generator(**GENERATOR), judges, LogMelSpectrogram(**MEL), stft, **options)


@pytest.fixture
def batches(speech: np.ndarray) -> list[dict[str, Tensor]]:
    audio = torch.from_numpy(speech[8000 : 8000 + 4 * 2048]).double().reshape(2, 2, 1, 2048)
    return [{"audio": pieces, "mel": LogMelSpectrogram(**MEL)(pieces)} for pieces in audio]


class AfterOne(Callback):
    """Keeps the gradients that stand after the first micro-batch."""

    def __init__(self) -> None:
        self.gradients: dict[str, Tensor] = {}

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        named = pl_module.named_parameters()
        self.gradients = self.gradients or {k: p.grad.clone() for k, p in named if p.grad is not None}


def fit(module: UnivNet, batches: list[Any]) -> dict[str, Tensor]:
    seen = AfterOne()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", max_epochs=1, precision="64-true", callbacks=[seen], **quiet)
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return seen.gradients


def hinge_with_features_and_mel() -> UnivNet:
    options: dict[str, Any] = {"adversarial_loss": Hinge(), "feature_weight": 2.0, "mel_weight": 15.0}
    options |= {"mel_loss": MultiScaleMelLoss(16000, MEL_RESOLUTIONS), "stft_weight": 1.5}
    two = Updates(accumulate=2)  # the first micro-batch's gradients, halved, are there to look at
    return small(generator_updates=two, discriminator_updates=two, **options)


def test_both_players_have_the_gradients_of_separate_passes(
    batches: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = hinge_with_features_and_mel().double()

    def generate(batch: Any) -> Tensor:
        return module.generator(batch["mel"], generator=torch.Generator().manual_seed(7))

    monkeypatch.setattr(module, "generate", generate)
    audio, parts = batches[0]["audio"], module.discriminator.parts()
    fake = module.generate(batches[0])
    adversarial, matching = [], []
    for part in parts.values():
        scores, features = part(fake, with_features=True)
        with torch.no_grad():
            _, of_real = part(audio, with_features=True)
        adversarial.append((1 - scores).clamp(min=0).mean())
        matching.append(sum((f - r).abs().mean() for f, r in zip(features, of_real, strict=True)))
    log10_mels = [LogMelSpectrogram(16000, n, hop, n_mels=bands) for n, hop, bands in MEL_RESOLUTIONS]
    mel = sum((m(fake) - m(audio)).abs().mean() for m in log10_mels) / np.log(10)
    stft = torch.stack(list(module.stft_loss(fake, audio).values())).sum()
    g_loss = 1.5 * stft + 15 * mel + torch.stack(adversarial).mean() + 2 * torch.stack(matching).mean()
    d_losses = [(1 - p(audio)).clamp(min=0).mean() + (1 + p(fake.detach())).clamp(min=0).mean() for p in parts.values()]
    d_loss = torch.stack(d_losses).mean()
    expected = {}
    for name, loss in (("generator", g_loss), ("discriminator", d_loss)):
        named = dict(getattr(module, name).named_parameters(prefix=name))
        expected |= dict(zip(named, torch.autograd.grad(loss / 2, list(named.values())), strict=True))

    runs: list[str] = []
    for name, part in parts.items():
        part.register_forward_pre_hook(lambda _, args, name=name: runs.append(name))
    gradients = fit(module, batches)
    assert runs == [name for name in parts for _ in range(2)] * 2  # once on the reals and once on the fakes
    assert gradients.keys() == expected.keys()
    for name, gradient in expected.items():
        if not name.endswith("conv_post.bias"):  # between the hinges a bias pulls both scores alike
            assert gradient.abs().max() > 0, name
        torch.testing.assert_close(gradients[name], gradient, rtol=1e-12, atol=1e-12, msg=name)


def test_the_terms_are_logged_apart(batches: list[Any]) -> None:
    module = hinge_with_features_and_mel().double()
    fake, parts = module.generate(batches[0]), module.discriminator.parts()
    terms = {name: term.item() for name, term in module.generator_loss(batches[0], fake).items()}
    alone = {name: (1 - part(fake)).clamp(min=0).mean().item() for name, part in parts.items()}
    assert {name: terms[name] for name in parts} == pytest.approx(alone)
    assert terms["feature_matching"] > 0
    assert terms["adversarial"] == pytest.approx(np.mean(list(alone.values())))
    weights = {"stft": 1.5, "multi_scale_mel": 15, "adversarial": 1, "feature_matching": 2}
    assert terms["loss"] == pytest.approx(sum(weight * terms[name] for name, weight in weights.items()))


def test_by_default_the_recipe_is_univnets(batches: list[Any]) -> None:
    module, plain = small(), dict(small().state_dict())
    fit(module, batches)
    assert type(module.adversarial_loss) is LeastSquares
    assert not {"feature_matching", "multi_scale_mel"} & module.updates["generator"].report.keys()
    assert hinge_with_features_and_mel().state_dict().keys() == plain.keys()  # losses add nothing to checkpoints


@pytest.mark.parametrize("written", ["{class_path: univnet.losses.Hinge}", "univnet.losses.Hinge", "Hinge"])
def test_yaml_switches_them_on(written: str, demo: Path, tmp_path: Path) -> None:
    more = tmp_path / "more.yaml"
    more.write_text(f"model: {{adversarial_loss: {written}, feature_weight: 2.0, mel_weight: 15.0}}")
    args = ["--config", str(write_config(tmp_path, 3, demo)), "--config", str(more)]
    model = TrainingCLI(args=args, run=False).model
    assert isinstance(model.adversarial_loss, FeatureMatching)
    assert isinstance(model.adversarial_loss.adversarial, Hinge)
    assert (model.adversarial_loss.weight, model.mel_weight) == (2.0, 15.0)
    assert model.mel_loss.sample_rate == 16000


def test_validation_tells_the_mel_loss(batches: list[Any]) -> None:
    module = hinge_with_features_and_mel()
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar"), False)
    trainer = Trainer(accelerator="cpu", precision="64-true", **quiet)
    [metrics] = trainer.validate(module, DataLoader(batches, batch_size=None), verbose=False)
    assert metrics["val/multi_scale_mel"] > 0


def test_every_misfit_of_the_losses_is_named_at_once() -> None:
    class Plain(Discriminator):
        def parts(self) -> dict[str, nn.Module]:
            return {"rest": nn.Identity(), **super().parts()}

    with pytest.raises(ValueError, match="feature_weight must not be negative, got -1") as error:
        UnivNet(discriminator=Plain(), feature_weight=-1.0, mel_weight=-2.0, mel_loss=MultiScaleMelLoss(16000))
    for mistake in (
        "mel_weight must not be negative, got -2.0",
        "mel_loss.sample_rate is 16000 but mel.sample_rate is 24000: make them equal",
        "the loss needs features, but rest of the discriminator cannot return any",
    ):
        assert mistake in str(error.value)
