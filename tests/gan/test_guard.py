"""Clipping, mixed precision, and the guard against NaN and infinity."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.plugins.precision import MixedPrecision
from support.toy import ToyGAN, by_hand, quiet_trainer, toy_loader, weights
from torch.nn.utils import clip_grad_norm_, get_total_norm

from univnet.gan import NonFiniteError, Updates
from univnet.gan.updates import frozen


class Watched(ToyGAN):
    """Records each optimizer's gradient norm and largest element as the optimizer gets them."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.norms: dict[str, list[float]] = {"generator": [], "discriminator": []}
        self.peaks: list[float] = []

    def on_before_optimizer_step(self, optimizer: Any) -> None:
        for name, player in self.updates.items():
            if player.optimizer is optimizer:
                grads = [p.grad for p in player.parameters]
                self.norms[name].append(float(get_total_norm(grads)))
                self.peaks.append(max(float(g.abs().max()) for g in grads))


def plugin(precision: str) -> Any:
    if precision == "16-mixed":
        return MixedPrecision("16-mixed", "cpu", torch.amp.GradScaler("cpu", init_scale=2.0**10))
    return MixedPrecision("bf16-mixed", "cpu") if precision == "bf16-mixed" else None


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
@pytest.mark.parametrize("optimizer", ["sgd", "fused", "foreach"])
def test_the_norm_that_reaches_the_optimizer_is_clipped(precision: str, optimizer: str, tmp_path: Any) -> None:
    limits, k = {"generator": 0.5, "discriminator": 0.2}, 3
    runs = {}
    for clipped in (False, True):
        settings = [Updates(k, clip_norm=limit if clipped else None) for limit in limits.values()]
        # A rate so small that both runs see the same weights, hence the same norms before clipping.
        gan = Watched(*settings, optimizer, lr=(1e-12, 1e-12), dtype=torch.float32)
        quiet_trainer(tmp_path, plugins=plugin(precision), max_epochs=2).fit(gan, toy_loader(dtype=torch.float32))
        runs[clipped] = gan.norms
    for name, limit in limits.items():
        raw = np.array(runs[False][name])
        assert len(raw) == 8
        assert (raw > limit).any()
        np.testing.assert_allclose(runs[True][name], np.minimum(raw, limit), atol=1e-6, rtol=1e-6)


def test_clip_value_bounds_every_element_and_both_are_logged(tmp_path: Any) -> None:
    gan = Watched(Updates(2, clip_value=0.01), Updates(1, clip_value=1e9))
    trainer = quiet_trainer(tmp_path)
    trainer.fit(gan, toy_loader())
    generator = [gan.norms["generator"][-1], float(trainer.callback_metrics["generator/gradient_norm"])]
    assert min(gan.peaks) == pytest.approx(0.01)
    assert generator[0] < generator[1]
    assert trainer.callback_metrics["generator/clipped"] == 1
    assert trainer.callback_metrics["discriminator/clipped"] == 0


class Poisoned(ToyGAN):
    """Multiplies a player's loss by something not finite at chosen micro-batches."""

    def __init__(self, poison: dict[str, dict[int, float]], *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.poison = poison

    def poisoned(self, player: str) -> float:
        return self.poison.get(player, {}).get(self.updates[player].micro_batches, 1.0)

    def generator_loss(self, *args: Any) -> Any:
        return {k: v * self.poisoned("generator") for k, v in super().generator_loss(*args).items()}

    def discriminator_loss(self, *args: Any) -> Any:
        return {k: v * self.poisoned("discriminator") for k, v in super().discriminator_loss(*args).items()}


def test_poisoned_windows_are_skipped_and_nothing_else(tmp_path: Any) -> None:
    random = np.random.default_rng(7)
    places = random.choice(1000, 100, replace=False)
    poison: dict[str, dict[int, float]] = {"generator": {}, "discriminator": {}}
    for place in places:
        player = str(random.choice(["generator", "discriminator"]))
        poison[player][int(place)] = float(random.choice([np.nan, np.inf, -np.inf]))
    settings = {"generator": Updates(3, clip_norm=1.0), "discriminator": Updates(2)}
    gan, reference = Poisoned(poison, *settings.values()), ToyGAN()
    quiet_trainer(tmp_path, max_epochs=10).fit(gan, toy_loader(400))
    made = by_hand(reference, list(toy_loader(400)), settings, 10, lambda player, index: poison[player].get(index, 1.0))
    assert weights(gan).isfinite().all()
    for name, player in gan.updates.items():
        assert player.nonfinite == made[name].count(False) > 20
        assert player.steps == made[name].count(True)
    torch.testing.assert_close(weights(gan), weights(reference), rtol=1e-9, atol=1e-11)


class InfiniteTerm(ToyGAN):
    """A loss that is infinite with a gradient that is not."""

    def generator_loss(self, *args: Any) -> Any:
        terms = super().generator_loss(*args)
        return terms | {"loss": terms["loss"] + float("inf"), "l2": terms["l2"] + float("inf")}


def test_training_stops_with_a_message_that_names_the_term(tmp_path: Any, caplog: Any) -> None:
    gan = InfiniteTerm(Updates(2, max_nonfinite=3))
    before = weights(gan.generator).clone()
    with pytest.raises(NonFiniteError, match=r"generator: 3 updates in a row .*'l2'.*learning rate"):
        quiet_trainer(tmp_path).fit(gan, toy_loader())
    assert torch.equal(weights(gan.generator), before)
    assert gan.updates["generator"].nonfinite == 3
    assert gan.updates["discriminator"].steps == 5
    assert "generator: skipped an update after step 0: non-finite loss term 'loss', 'l2'" in caplog.text


@pytest.mark.parametrize("infinite", [None, "generator", "discriminator"])
def test_fp16_equals_pytorchs_recipe_for_two_optimizers(infinite: str | None, tmp_path: Any) -> None:
    """torch's documented loop: scale both losses, unscale and clip each optimizer, step both, update once."""
    clip, places = 0.5, {3, 4, 11}
    poison = {infinite: dict.fromkeys(places, float("inf"))} if infinite else {}
    gan = Poisoned(poison, Updates(clip_norm=clip), Updates(clip_norm=clip), dtype=torch.float32)
    loader = toy_loader(dtype=torch.float32)
    quiet_trainer(tmp_path, plugins=plugin("16-mixed"), max_epochs=2).fit(gan, loader)

    recipe = ToyGAN(dtype=torch.float32)
    optimizers = dict(zip(("generator", "discriminator"), recipe.configure_optimizers(), strict=True))
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    for index, batch in enumerate([*loader, *loader]):
        with torch.autocast("cpu", torch.float16, cache_enabled=False):  # as Lightning does
            fake = recipe.generate(batch)
            losses = {
                "generator": recipe.generator_loss(batch, fake)["loss"],
                "discriminator": recipe.discriminator_loss(batch, fake.detach())["loss"],
            }
        for name, optimizer in optimizers.items():
            infinity = float("inf") if name == infinite and index in places else 1.0
            parameters = optimizer.param_groups[0]["params"]
            grads = torch.autograd.grad(scaler.scale(losses[name] * infinity), parameters, retain_graph=True)
            for parameter, grad in zip(parameters, grads, strict=True):
                parameter.grad = grad
        for optimizer in optimizers.values():
            scaler.unscale_(optimizer)
            clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
            scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(weights(gan), weights(recipe), rtol=1e-5, atol=1e-6)
    for name, player in gan.updates.items():
        assert player.nonfinite == (len(places) if name == infinite else 0)


class Scales(Poisoned):
    """Records each player's loss scale, and where in its window it stands, at every micro-batch."""

    def on_train_batch_end(self, *args: Any) -> None:
        for name, player in self.updates.items():
            self.seen.setdefault(name, []).append((player.position, player.scaler.get_scale()))

    def on_train_start(self) -> None:
        super().on_train_start()
        self.seen: dict[str, list[tuple[int, float]]] = {}


def test_a_loss_scale_never_changes_inside_a_window_nor_by_the_other_player(tmp_path: Any) -> None:
    gan = Scales({"discriminator": {7: float("inf")}}, Updates(5), Updates(2), dtype=torch.float32)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=3)
    precision = MixedPrecision("16-mixed", "cpu", scaler)
    quiet_trainer(tmp_path, plugins=precision).fit(gan, toy_loader(160, dtype=torch.float32))
    for seen in gan.seen.values():
        for (_, before), (position, after) in pairwise(seen):
            assert position == 0 or after == before
    generator, discriminator = ([scale for _, scale in seen] for seen in gan.seen.values())
    assert generator == sorted(generator)  # it grows, and the other's overflow does not shrink it
    assert generator[-1] > generator[0]
    assert discriminator[7] == discriminator[6] / 2
    assert precision.scaler is scaler  # handed back


class Raises(ToyGAN):
    def generator_loss(self, *args: Any) -> Any:
        raise RuntimeError("a mistake in somebody's loss")


def test_an_exception_leaves_no_parameter_frozen(tmp_path: Any) -> None:
    gan = Raises()
    gan.discriminator[0].bias.requires_grad_(False)  # the user's own wish, which must stand
    with pytest.raises(RuntimeError, match="somebody's loss"):
        quiet_trainer(tmp_path).fit(gan, toy_loader())
    assert [name for name, p in gan.named_parameters() if not p.requires_grad] == ["discriminator.0.bias"]


def test_frozen_leaves_graphs_built_before_alone() -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    loss = weight.square().sum()
    with frozen([weight]):
        assert not weight.requires_grad
    loss.backward()
    assert weight.grad.tolist() == [2.0, 2.0]


class Gradients(ToyGAN):
    """Records, after each player's backward pass, which networks hold a gradient."""

    def __init__(self) -> None:
        super().__init__(Updates(2), Updates(2))
        self.touched: list[tuple[bool, bool]] = []

    def on_after_backward(self) -> None:
        networks = (self.generator, self.discriminator)
        self.touched.append(tuple(all(p.grad is not None for p in net.parameters()) for net in networks))


def test_each_loss_reaches_its_own_player_and_no_other(tmp_path: Any) -> None:
    gan = Gradients()
    quiet_trainer(tmp_path, limit_train_batches=1).fit(gan, toy_loader())
    assert gan.touched == [(True, False), (True, True)]
    batch = next(iter(toy_loader()))
    fake = gan.generate(batch)
    adversarial = gan.generator_loss(batch, fake)["adversarial"]
    grads = torch.autograd.grad(adversarial, list(gan.generator.parameters()))
    assert all(grad.abs().sum() > 0 for grad in grads)


class ReturnsWrong(ToyGAN):
    def generator_loss(self, *args: Any) -> Any:
        return {"adversarial": super().generator_loss(*args)["adversarial"]}


def test_a_dict_without_loss_is_refused_by_name(tmp_path: Any) -> None:
    with pytest.raises(ValueError, match=r"generator_loss returned \['adversarial'\].*named 'loss'"):
        quiet_trainer(tmp_path).fit(ReturnsWrong(), toy_loader())


@pytest.mark.parametrize(
    ("rate", "dtype"),
    [(float("inf"), torch.float64), (float("nan"), torch.float64), (1e300, torch.float64), (1e30, torch.float32)],
)
@pytest.mark.parametrize("player", ["generator", "discriminator"])
def test_weights_that_an_update_made_infinite_stop_training_and_reach_no_checkpoint(
    player: str, rate: float, dtype: torch.dtype, tmp_path: Path
) -> None:
    class Explodes(ToyGAN):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                self.updates[player].optimizer.param_groups[0]["lr"] = rate

    gan, good = Explodes(optimizer="sgd", dtype=dtype), tmp_path / "last.ckpt"

    class Saves(Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            trainer.save_checkpoint(good)

    trainer = quiet_trainer(tmp_path, callbacks=[Saves()])
    message = rf"{player}: its weights are NaN, infinite .* after update \d+.*learning rate"
    with pytest.raises(NonFiniteError, match=message):
        trainer.fit(gan, toy_loader(dtype=dtype))
    assert all(value.isfinite().all() for value in torch.load(good, weights_only=True)["state_dict"].values())


def test_the_player_whose_weights_are_gone_is_named_where_the_other_one_notices(tmp_path: Path) -> None:
    class Explodes(ToyGAN):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            if batch_idx == 2:
                self.updates["discriminator"].optimizer.param_groups[0]["lr"] = float("inf")

    trainer = quiet_trainer(tmp_path, log_every_n_steps=1000)  # no row, no save: only the generator's gradient tells
    with pytest.raises(NonFiniteError, match="discriminator: its weights are NaN") as found:
        trainer.fit(Explodes(Updates(max_nonfinite=1), optimizer="sgd"), toy_loader())
    assert found.value.player == "discriminator"


def test_weights_that_explode_are_told_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Explodes(ToyGAN):
        def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
            self.updates["generator"].optimizer.param_groups[0]["lr"] = 1e6

    trainer = quiet_trainer(tmp_path, log_every_n_steps=1, max_steps=3)
    trainer.fit(Explodes(optimizer="sgd"), toy_loader())
    said = [text for text in caplog.messages if "weights have grown" in text]
    assert len(said) == 1
    assert said[0].startswith("generator: its weights have grown")
