"""The UnivNet module on real speech: whose loss moves whom, when the game begins, and that it learns."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from support.small import GENERATOR, MEL, small_univnet, write_config
from support.toy import quiet_trainer
from torch.utils.data import DataLoader

from univnet import AudioDataModule, Generator, LogMelSpectrogram, Schedule, UnivNet
from univnet.cli.training import TrainingCLI
from univnet.gan import CyclicalLR, Updates
from univnet.models import Discriminator

CONFIGS = Path(__file__).parents[1] / "configs"


class Seen(Callback):
    """Keeps the gradients and weights that stand after each micro-batch."""

    def __init__(self) -> None:
        self.gradients: list[dict[str, torch.Tensor | None]] = []
        self.weights: list[dict[str, torch.Tensor]] = []

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, *_: Any) -> None:
        named = dict(pl_module.named_parameters())
        self.gradients.append({name: None if p.grad is None else p.grad.clone() for name, p in named.items()})
        self.weights.append({name: p.detach().clone() for name, p in named.items()})


def fit(module: UnivNet, batches: list[Any], **options: Any) -> Seen:
    seen = Seen()
    trainer = quiet_trainer(callbacks=[seen], **({"max_epochs": 1} | options))
    trainer.fit(module, DataLoader(batches, batch_size=None))
    return seen


def with_fixed_noise(module: UnivNet, monkeypatch: pytest.MonkeyPatch) -> UnivNet:
    def generate(batch: Any) -> torch.Tensor:
        return module.generator(batch["mel"], generator=torch.Generator().manual_seed(7))

    monkeypatch.setattr(module, "generate", generate)
    return module


def halved_gradients(loss: torch.Tensor, network: torch.nn.Module) -> dict[str, torch.Tensor]:
    named = dict(network.named_parameters())
    return dict(zip(named, torch.autograd.grad(loss / 2, list(named.values())), strict=True))


class TestWhoseLossMovesWhom:
    """One micro-batch of an open window of two: the gradients are still there to look at."""

    def after_one(self, module: UnivNet, batches: list[Any]) -> dict[str, torch.Tensor | None]:
        return fit(module, batches[:2]).gradients[0]

    def test_each_player_has_the_gradient_of_its_own_loss_alone(
        self, batches: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        two = Updates(accumulate=2)
        module = small_univnet(generator_updates=two, discriminator_updates=two, stft_weight=1.5)
        with_fixed_noise(module, monkeypatch)
        fake = module.generate(batches[0])

        real_scores, fake_scores = module.discriminator(batches[0]["audio"]), module.discriminator(fake.detach())
        pairs = [(real_scores[name], fake_scores[name]) for name in real_scores]
        d_loss = torch.stack([(1 - r).square().mean() + f.square().mean() for r, f in pairs]).mean()
        fooled = torch.stack([(1 - s).square().mean() for s in module.discriminator(fake).values()]).mean()
        g_loss = 1.5 * torch.stack(list(module.stft_loss(fake, batches[0]["audio"]).values())).sum() + fooled
        expected = {f"generator.{k}": v for k, v in halved_gradients(g_loss, module.generator).items()}
        expected |= {f"discriminator.{k}": v for k, v in halved_gradients(d_loss, module.discriminator).items()}

        gradients = self.after_one(module, batches)
        assert gradients.keys() == expected.keys()
        for name, gradient in expected.items():
            largest = gradient.abs().max().item()
            assert largest > 0, name
            torch.testing.assert_close(gradients[name], gradient, rtol=0, atol=1e-4 * largest, msg=name)

    def test_neither_loss_touches_the_other_players_gradients(
        self, batches: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def gradients(player: str, silenced: str) -> dict[str, Any]:
            two = Updates(accumulate=2)
            module = with_fixed_noise(small_univnet(generator_updates=two, discriminator_updates=two), monkeypatch)
            if silenced:  # the other player's loss is of no weight
                loss = getattr(module, f"{silenced}_loss")
                monkeypatch.setattr(module, f"{silenced}_loss", lambda *args: {"loss": 0 * loss(*args)["loss"]})
            return {k: v for k, v in self.after_one(module, batches).items() if k.startswith(player)}

        for player, other in (("generator", "discriminator"), ("discriminator", "generator")):
            alone, together = gradients(player, other), gradients(player, "")
            assert all(torch.equal(alone[name], together[name]) for name in together)
            assert all(together[name].abs().max() > 0 for name in together)

    def test_the_generator_hears_the_discriminator(self, batches: list[Any]) -> None:
        two = Updates(accumulate=2)
        module = small_univnet(generator_updates=two, discriminator_updates=two, stft_weight=0.0)
        gradients = self.after_one(module, batches)
        assert all(g.abs().max() > 0 for name, g in gradients.items() if name.startswith("generator."))


def test_the_game_begins_at_discriminator_start(batches: list[Any]) -> None:
    module = small_univnet(discriminator_start=2)
    before = {name: p.detach().clone() for name, p in module.discriminator.named_parameters()}
    seen = fit(module, batches)
    for name, initial in before.items():
        held = [torch.equal(initial, weights[f"discriminator.{name}"]) for weights in seen.weights]
        assert held == [True, True, False, False], name
    assert module.updates["generator"].steps == 4
    assert module.updates["discriminator"].steps == 2


def test_it_learns_one_utterance(speech: np.ndarray) -> None:
    audio = torch.from_numpy(speech[8000 : 8000 + 8192]).reshape(1, 1, -1)
    batch = {"audio": audio, "mel": LogMelSpectrogram(**MEL)(audio)}
    module = small_univnet(
        generator=Generator(**GENERATOR | {"channels": 8, "noise_channels": 8, "predictor_channels": 16}),
        generator_lr=3e-3,
        discriminator_lr=2e-4,
    )
    losses = []

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            losses.append(float(module.updates["generator"].report["stft"]))

    trainer = quiet_trainer(max_steps=150, callbacks=[Watch()])
    trainer.fit(module, DataLoader([batch] * 150, batch_size=None))
    assert len(losses) == 150
    assert np.mean(losses[-10:]) < 0.6 * losses[0], (losses[0], losses[-10:])


def test_validation_repeats_itself_and_leaves_the_random_numbers_alone(batches: list[Any]) -> None:
    module = small_univnet().eval()
    trainer = quiet_trainer()
    state = torch.get_rng_state()
    loader = DataLoader(batches, batch_size=None, generator=torch.Generator())
    [first] = trainer.validate(module, loader, verbose=False)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    [second] = trainer.validate(module, loader, verbose=False)
    assert first == second
    assert first["val/stft"] == pytest.approx(first["val/spectral_convergence"] + first["val/log_magnitude"])
    assert first["val/mel"] > 0


def parsed(*argv: Any) -> TrainingCLI:
    return TrainingCLI(args=[str(arg) for arg in argv], run=False)


@pytest.mark.parametrize(("name", "millions"), [("univnet_c16", 4.00), ("univnet_c32", 14.87), ("demo", None)])
def test_the_shipped_configurations_are_whole(name: str, millions: float | None, tmp_path: Path) -> None:
    root = ["--data.root", tmp_path] if millions else []
    cli = parsed("--config", CONFIGS / f"{name}.yaml", *root, "--trainer.accelerator", "cpu")
    assert isinstance(cli.model, UnivNet)
    assert isinstance(cli.datamodule, AudioDataModule)
    assert cli.datamodule.mel is cli.model.mel
    assert cli.trainer.max_steps > 0
    if millions:
        assert sum(p.numel() for p in cli.model.generator.parameters()) / 1e6 == pytest.approx(millions, abs=0.005)


def test_each_player_has_a_schedule_of_its_own_from_yaml(demo: Path, tmp_path: Path, batches: list[Any]) -> None:
    config = write_config(tmp_path, 3, demo)
    schedules = tmp_path / "schedules.yaml"
    schedules.write_text(
        """
model:
  generator_lr: 1.0e-3
  discriminator_lr: 2.0e-3
  generator_schedule:
    scheduler:
      class_path: univnet.gan.CyclicalLR
      init_args: {base_lr: 1.0e-3, max_lr: 3.0e-3, step_size_up: 2}
  discriminator_schedule:
    scheduler:
      class_path: torch.optim.lr_scheduler.ExponentialLR
      init_args: {gamma: 0.5}
    frequency: 2
"""
    )
    model = parsed("--config", config, "--config", schedules).model
    assert isinstance(model._schedule["generator"], Schedule)
    rates: dict[str, list[float]] = {"generator": [], "discriminator": []}

    class Watch(Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            for name, player in model.updates.items():
                rates[name].append(float(player.report["lr"]))

    trainer = quiet_trainer(max_epochs=1, callbacks=[Watch()])
    trainer.fit(model, DataLoader(batches, batch_size=None))
    assert isinstance(trainer.lr_scheduler_configs[0].scheduler, CyclicalLR)
    assert rates["generator"] == pytest.approx([1e-3, 2e-3, 3e-3, 2e-3])
    assert rates["discriminator"] == pytest.approx([2e-3, 2e-3, 1e-3, 1e-3])


def test_every_misfit_is_named_at_once() -> None:
    with pytest.raises(ValueError, match=r"mel\.hop_length is 200 .* is 256: .*; generator\.n_mels is 20 but"):
        small_univnet(mel=LogMelSpectrogram(16000, hop_length=200, n_mels=30))


def test_a_discriminator_whose_forward_training_would_pass_by_is_refused() -> None:
    class Quieter(Discriminator):
        def forward(self, audio: torch.Tensor) -> dict[str, torch.Tensor]:
            return super().forward(audio / 2)

    class Whole(Quieter):
        def parts(self) -> dict[str, torch.nn.Module]:
            return {"all": torch.nn.Identity()}

    with pytest.raises(ValueError, match=r"Quieter defines forward\(\) without parts\(\)"):
        UnivNet(discriminator=Quieter())
    UnivNet(discriminator=Whole())


def test_validation_is_in_full_precision_in_mixed_precision_too(batches: list[Any]) -> None:
    module, found = small_univnet(), []
    for precision in ("32-true", "bf16-mixed"):
        trainer = quiet_trainer(precision=precision)
        trainer.validate(module, DataLoader(batches, batch_size=None), verbose=False)
        found.append(dict(trainer.callback_metrics))
    assert found[0].keys() == found[1].keys() >= {"val/stft", "val/mel"}
    assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
