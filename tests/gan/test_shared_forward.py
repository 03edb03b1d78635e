"""One discriminator forward for both players gives the gradients of a forward for each."""

import copy
import weakref
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from univnet.gan import Player, SharedForward
from univnet.gan.updates import frozen

Parts = dict[str, nn.Module]


def hinge_of_generator(fake: Tensor) -> dict[str, Tensor]:
    return {"loss": -fake.mean(), "score": fake.detach().mean()}


def relativistic_of_discriminator(real: Tensor, fake: Tensor) -> dict[str, Tensor]:
    """A loss that couples both scores: no sum of one of each."""
    return {"loss": nn.functional.softplus(fake - real).mean()}


@pytest.fixture
def parts() -> Parts:
    torch.manual_seed(0)
    convs = (nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 3, size)) for size in (3, 5))
    return {str(i): nn.Sequential(conv, nn.Tanh(), nn.Conv1d(3, 1, 3)).double() for i, conv in enumerate(convs)}


@pytest.fixture
def judged(parts: Parts) -> Iterator[list[tuple[str, Tensor]]]:
    """What each part is run on."""
    seen: list[tuple[str, Tensor]] = []
    hooks = [
        part.register_forward_pre_hook(lambda _, args, name=name: seen.append((name, args[0])))
        for name, part in parts.items()
    ]
    yield seen
    for hook in hooks:
        hook.remove()


def audio(seed: int) -> Tensor:
    return torch.randn(4, 1, 50, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def weighted(terms: dict[str, dict[str, Tensor]]) -> Tensor:
    return 3 * terms["0"]["loss"] - 0.5 * terms["1"]["loss"].square()


def both() -> SharedForward:
    return SharedForward(hinge_of_generator, relativistic_of_discriminator)


def weights(parts: Parts) -> list[Tensor]:
    return [p for part in parts.values() for p in part.parameters()]


def test_gradients_are_those_of_separate_forwards(parts: Parts, judged: list) -> None:
    noise, real = audio(0).requires_grad_(), audio(1)
    fake = noise.tanh()
    loss = weighted({k: hinge_of_generator(part(fake)) for k, part in parts.items()})
    [to_noise] = torch.autograd.grad(loss, [noise])
    d_loss = weighted({k: relativistic_of_discriminator(p(real), p(fake.detach())) for k, p in parts.items()})
    to_weights = torch.autograd.grad(d_loss, weights(parts))
    judged.clear()

    shared, fake = both(), noise.tanh()
    with frozen(weights(parts)):
        terms = shared.generator_terms(parts, fake, real)
    assert not any(p.grad is not None for p in weights(parts))
    assert all(p.requires_grad for p in weights(parts))
    torch.testing.assert_close(weighted(terms), loss, rtol=0, atol=1e-12)
    weighted(terms).backward()
    torch.testing.assert_close(noise.grad, to_noise, rtol=0, atol=1e-12)
    assert not any(p.grad is not None for p in weights(parts))

    d_terms = shared.discriminator_terms(parts, fake.detach(), real)
    torch.testing.assert_close(weighted(d_terms), d_loss, rtol=0, atol=1e-12)
    weighted(d_terms).backward()
    for parameter, gradient in zip(weights(parts), to_weights, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(noise.grad, to_noise, rtol=0, atol=1e-12)
    assert [name for name, _ in judged] == ["0", "0", "1", "1"]  # on the fakes and on the reals, a part at a time


@pytest.mark.parametrize("other", ["fake", "real", "changed", "real changed", "parts"])
def test_other_audio_is_judged_anew(parts: Parts, judged: list, other: str) -> None:
    shared, real, fake = both(), audio(1), audio(0).requires_grad_().tanh()
    shared.generator_terms(parts, fake, real)
    judged.clear()
    if other == "changed":
        fake = fake.detach().mul_(0.5)
    if other == "real changed":
        real.mul_(5)
    fake, real = audio(2) if other == "fake" else fake.detach(), audio(3) if other == "real" else real
    parts = {"0": parts["0"]} if other == "parts" else parts
    terms = shared.discriminator_terms(parts, fake, real)
    assert judged
    for name, part in parts.items():
        expected = relativistic_of_discriminator(part(real), part(fake))["loss"]
        torch.testing.assert_close(terms[name]["loss"], expected, rtol=0, atol=1e-12)


def no_grad(shared: SharedForward, parts: Parts, fake: Tensor) -> None:
    with torch.no_grad():
        shared.generator_terms(parts, fake, fake)


def for_fp16(shared: SharedForward, parts: Parts, fake: Tensor) -> None:
    with torch.autocast("cpu", torch.float16):
        shared.generator_terms(parts, fake, fake)


def hooked(shared: SharedForward, parts: Parts, fake: Tensor) -> None:
    next(parts["0"].parameters()).register_hook(lambda gradient: 10 * gradient)
    shared.generator_terms(parts, fake, fake)


def detached(shared: SharedForward, parts: Parts, fake: Tensor) -> None:
    shared.generator_terms(parts, fake.detach(), fake)


@pytest.mark.parametrize("how", [no_grad, for_fp16, hooked, detached])
def test_nothing_is_shared_where_it_should_not_be(parts: Parts, judged: list, how: Callable) -> None:
    shared, fake = both(), audio(0).requires_grad_().tanh()
    shared.generator_terms(parts, fake, fake)  # what it leaves must not be taken for the next one's
    judged.clear()
    how(shared, parts, fake)
    assert len(judged) == 2
    shared.discriminator_terms(parts, fake.detach(), fake)
    assert len(judged) == 6


def test_its_share_is_handed_out_once_and_may_be_copied(parts: Parts, judged: list) -> None:
    shared, real, fake = both(), audio(1), audio(0).requires_grad_().tanh()
    shared.generator_terms(parts, fake, real)
    copied = copy.deepcopy(shared)
    first = shared.discriminator_terms(parts, fake, real)
    judged.clear()
    again = shared.discriminator_terms(parts, fake, real)
    assert len(judged) == 4
    torch.testing.assert_close(weighted(first), weighted(again), rtol=0, atol=1e-12)
    torch.testing.assert_close(weighted(copied.discriminator_terms(parts, fake, real)), weighted(again))


def test_a_part_without_weights_is_judged_like_others() -> None:
    shared, fake = both(), audio(0).requires_grad_().tanh()
    shared.generator_terms({"a": nn.Tanh()}, fake, audio(1))["a"]["loss"].backward()
    assert shared.discriminator_terms({"a": nn.Tanh()}, fake, audio(1))["a"]["loss"].isfinite()


def test_what_was_frozen_for_good_stays_without_gradient(parts: Parts) -> None:
    parts["0"].requires_grad_(False)
    shared, real, fake = both(), audio(1), audio(0).requires_grad_().tanh()
    shared.generator_terms(parts, fake, real)
    weighted(shared.discriminator_terms(parts, fake, real)).backward()
    assert all(p.grad is None and not p.requires_grad for p in parts["0"].parameters())
    assert all(p.grad is not None for p in parts["1"].parameters())


def test_an_unused_parameter_gets_no_gradient() -> None:
    part = nn.Linear(3, 1)
    part.unused = nn.Parameter(torch.ones(2))
    shared, fake = both(), torch.randn(5, 3, requires_grad=True) * 2
    shared.generator_terms({"a": part}, fake, fake.detach())
    shared.discriminator_terms({"a": part}, fake, fake.detach())["a"]["loss"].backward()
    shared.generator_terms({"a": part}, fake, real := torch.randn(5, 3))
    shared.discriminator_terms({"a": part}, fake, real)["a"]["loss"].backward()
    assert part.unused.grad is None
    assert part.weight.grad is not None


class Judged(NamedTuple):
    scores: Tensor
    features: list[Tensor]


def layers_of(part: nn.Module, x: Tensor) -> Judged:
    """Run a part by its layers; its scores come of `part(x)` itself, so that the hooks count it."""
    features: list[Tensor] = []
    hooks = [layer.register_forward_hook(lambda _, args, out: features.append(out)) for layer in part.children()]
    scores = part(x)
    for hook in hooks:
        hook.remove()
    return Judged(scores, features)


def matching_of_generator(fake: Judged, real: Judged) -> dict[str, Tensor]:
    """A relativistic loss and feature matching: both depend on the reals, too."""
    pairs = zip(fake.features, real.features, strict=True)
    matching = torch.stack([(f - r).abs().mean() for f, r in pairs]).sum()
    return {"loss": nn.functional.softplus(real.scores - fake.scores).mean() + 2 * matching, "matching": matching}


def matching_of_discriminator(real: Judged, fake: Judged) -> dict[str, Tensor]:
    """It may see features, too."""
    loss = nn.functional.softplus(fake.scores - real.scores).mean()
    return {"loss": loss - 0.1 * (fake.features[0] - real.features[0]).square().mean()}


def with_features() -> SharedForward:
    return SharedForward(matching_of_generator, matching_of_discriminator, True, layers_of)


@pytest.mark.parametrize("in_fp16", [False, True])
def test_features_of_the_reals_reach_the_generator_without_a_forward_more(
    parts: Parts, judged: list, in_fp16: bool
) -> None:
    noise, real = audio(0).requires_grad_(), audio(1)
    fake = noise.tanh()
    of_real = {k: layers_of(part, real) for k, part in parts.items()}
    loss = weighted(
        {
            k: matching_of_generator(layers_of(p, fake), Judged(r.scores.detach(), [x.detach() for x in r.features]))
            for (k, p), r in zip(parts.items(), of_real.values(), strict=True)
        }
    )
    [to_noise] = torch.autograd.grad(loss, [noise])
    d_loss = weighted({k: matching_of_discriminator(of_real[k], layers_of(p, fake.detach())) for k, p in parts.items()})
    to_weights = torch.autograd.grad(d_loss, weights(parts))
    judged.clear()

    shared, fake = with_features(), noise.tanh()
    with torch.autocast("cpu", torch.float16, enabled=in_fp16), frozen(weights(parts)):  # float64 stays float64 there
        terms = shared.generator_terms(parts, fake, real)
    generators_own = [name for name, _ in judged]
    torch.testing.assert_close(weighted(terms), loss, rtol=0, atol=1e-12)
    weighted(terms).backward()
    torch.testing.assert_close(noise.grad, to_noise, rtol=0, atol=1e-12)
    assert not any(p.grad is not None for p in weights(parts))
    d_terms = shared.discriminator_terms(parts, fake.detach(), real)
    torch.testing.assert_close(weighted(d_terms), d_loss, rtol=0, atol=1e-12)
    weighted(d_terms).backward()
    for parameter, gradient in zip(weights(parts), to_weights, strict=True):
        torch.testing.assert_close(parameter.grad, gradient, rtol=0, atol=1e-12)
    torch.testing.assert_close(noise.grad, to_noise, rtol=0, atol=1e-12)
    assert generators_own == ["0", "0", "1", "1"]
    assert [torch.equal(x, real) for _, x in judged[:4]] == [True, False, True, False]  # the reals first
    assert len(judged) == (8 if in_fp16 else 4)


def test_only_one_parts_activations_are_held(parts: Parts) -> None:
    held: dict[str, list[Any]] = {"0": [], "1": []}
    alive: list[int] = []

    def judge(part: nn.Module, x: Tensor) -> Judged:
        [name] = [name for name, each in parts.items() if each is part]
        alive.append(sum(reference() is not None for reference in held["0"]))
        said = layers_of(part, x)
        held[name] += [weakref.ref(x) for x in said.features]
        return said

    shared = SharedForward(matching_of_generator, matching_of_discriminator, True, judge)
    shared.generator_terms(parts, audio(0).requires_grad_().tanh(), audio(1))
    assert alive == [0, 3, 0, 0]  # part 0 on the reals, then on the fakes, and part 1 on both
    assert [len(references) for references in held.values()] == [6, 6]
    assert not any(reference() is not None for references in held.values() for reference in references)


class Conditional(nn.Module):
    """A part that also sees a condition, and counts its forward passes."""

    def __init__(self, channels: int = 1) -> None:
        super().__init__()
        self.conv, self.embed = nn.Conv1d(channels, 3, 3).double(), nn.Conv1d(1, 3, 3).double()
        self.runs = 0

    def forward(self, x: Tensor, condition: dict[str, Tensor] | None = None) -> Tensor:
        self.runs += 1
        out = self.conv(x).tanh()
        return (out if condition is None else out * self.embed(condition["mel"])).mean(1)


def sums(terms: dict[str, dict[str, Tensor]]) -> Tensor:
    return torch.stack([each["loss"] for each in terms.values()]).sum()


def test_a_condition_reaches_the_parts_and_gets_its_gradient() -> None:
    part, real, encoder = Conditional(), audio(1), nn.Conv1d(1, 1, 1).double()
    condition, fake = {"mel": encoder(audio(2))}, audio(0).requires_grad_()
    generator = hinge_of_generator(part(fake, condition))["loss"]
    to_inputs = torch.autograd.grad(generator, [fake, *encoder.parameters()])
    detached = {"mel": condition["mel"].detach()}
    discriminator = relativistic_of_discriminator(part(real, detached), part(fake.detach(), detached))["loss"]
    to_weights = torch.autograd.grad(discriminator, list(part.parameters()))
    part.runs = 0

    shared, condition = both(), {"mel": encoder(audio(2))}
    with frozen(list(part.parameters())):
        sums(shared.generator_terms({"a": part}, fake, real, condition)).backward()
    of_encoder = [parameter.grad.clone() for parameter in encoder.parameters()]
    sums(shared.discriminator_terms({"a": part}, fake.detach(), real, condition)).backward()
    assert part.runs == 2
    torch.testing.assert_close([fake.grad, *of_encoder], list(to_inputs), rtol=0, atol=1e-12)
    torch.testing.assert_close([p.grad for p in part.parameters()], list(to_weights), rtol=0, atol=1e-12)
    torch.testing.assert_close([p.grad for p in encoder.parameters()], of_encoder, rtol=0, atol=0)


@pytest.mark.parametrize(("by_handle", "runs"), [(True, [2, 2, 2]), (False, [4, 3, 3])])
def test_a_condition_joined_to_the_fakes_costs_no_forward_more(
    by_handle: bool, runs: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    part, shared, condition, real = Conditional(2), both(), audio(2), audio(1)
    parts, counted = {"a": part}, []

    def joined(x: Tensor) -> Tensor:  # as in pix2pix
        return torch.cat([condition, x], 1)

    for _ in range(3):
        part.runs, fake = 0, audio(0).requires_grad_().tanh()
        with frozen(list(part.parameters())):
            known = {"handle": fake} if by_handle else {}
            sums(shared.generator_terms(parts, joined(fake), joined(real), **known)).backward()
        later = fake.detach()
        known = {"handle": later} if by_handle else {}
        terms = shared.discriminator_terms(parts, joined(later), joined(real), **known)
        expected = relativistic_of_discriminator(part(joined(real)), part(joined(later)))["loss"]
        torch.testing.assert_close(terms["a"]["loss"], expected, rtol=0, atol=1e-12)
        counted.append(part.runs - 2)
    assert counted == runs
    assert [record.levelname for record in caplog.records] == ([] if by_handle else ["WARNING"])
    assert by_handle or "give both the same handle=" in caplog.text


@pytest.mark.parametrize("kind", ["foreach", "fused", "plain"])
def test_weights_that_have_changed_are_judged_with(parts: Parts, judged: list, kind: str, caplog: Any) -> None:
    player = Player("discriminator")
    player.bind(torch.optim.AdamW(weights(parts), 0.1, **({} if kind == "plain" else {kind: True})), None)
    shared, real, fake = both(), audio(1), audio(0).requires_grad_().tanh()
    shared.generator_terms(parts, fake, real)
    player.open(0)
    player.accumulate({"loss": sums({k: hinge_of_generator(part(real)) for k, part in parts.items()})}, Tensor.backward)
    player.update(player.optimizer.step)
    terms = shared.discriminator_terms(parts, fake.detach(), real)
    for name, part in parts.items():
        expected = relativistic_of_discriminator(part(real), part(fake))["loss"]
        torch.testing.assert_close(terms[name]["loss"], expected, rtol=0, atol=1e-12)
    assert "the weights have changed" in caplog.text
    judged.clear()
    shared.generator_terms(parts, fake, real)
    assert [name for name, _ in judged] == ["0", "1"]  # nothing is shared any more


def test_shares_that_nobody_collects_end_with_a_warning(parts: Parts, judged: list, caplog: Any) -> None:
    shared, counted = both(), []
    for _ in range(5):
        fake = audio(0).requires_grad_().tanh()
        shared.generator_terms(parts, fake, audio(1))
        counted.append(len(judged))
        judged.clear()
    assert counted == [4, 4, 2, 2, 2]
    assert [record.message.count("in vain") for record in caplog.records] == [1]


def test_nothing_of_a_share_outlives_an_exception(parts: Parts) -> None:
    shared, held = both(), list[weakref.ref]()

    def step() -> None:
        fake, real = audio(0).requires_grad_().tanh(), audio(1)
        shared.generator_terms(parts, fake, real)
        gradients = [g for each in shared._share.precomputed.values() for g in each.gradients]
        held.extend(weakref.ref(tensor) for tensor in (fake, real, *gradients))
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        step()
    assert len(held) > 6
    assert not any(reference() is not None for reference in held)
