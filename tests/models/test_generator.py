import copy
import json
import math

import pytest
import torch

from univnet.models import Generator

SMALL = {
    "n_mels": 5,
    "noise_channels": 4,
    "channels": 4,
    "strides": (3, 2),
    "dilations": (1, 3),
    "predictor_channels": 6,
}


# The paper's 4.00 M and 14.86 M count the gains of weight normalization; without them it is 3.98 M and 14.79 M.
@pytest.mark.parametrize(("channels", "normed", "plain"), [(16, 3_997_426, 3_977_009), (32, 14_865_506, 14_789_153)])
def test_parameter_counts_are_the_papers(channels, normed, plain):
    with torch.device("meta"):
        generator = Generator(channels=channels)
    assert sum(p.numel() for p in generator.parameters()) == normed
    assert abs(normed / 1e6 - {16: 4.00, 32: 14.86}[channels]) < 0.01
    with torch.device("meta"):
        generator.remove_weight_norm()
    assert sum(p.numel() for p in generator.parameters()) == plain


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 9])
def test_any_number_of_frames(frames):
    generator = Generator(**SMALL)
    audio = generator(torch.randn(2, 5, frames))
    assert audio.shape == (2, 1, frames * generator.hop_length)
    assert audio.isfinite().all()
    assert audio.abs().max() <= 1


@pytest.mark.parametrize(
    "changes", [{}, {"strides": (8, 8, 4)}, {"dilations": (5,), "kernel_size": 5}, {"predictor_blocks": 0}]
)
def test_the_context_is_where_a_change_is_heard(changes):
    torch.manual_seed(0)
    generator = Generator(**SMALL | changes).double().eval()
    generator.remove_weight_norm()
    context, hop = generator.context_frames, generator.hop_length
    frames = 2 * context + 9
    mel, noise = torch.randn(1, 5, frames).double(), torch.randn(1, 4, frames).double()
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.copy_(torch.randn_like(parameter) / 2)  # far from saturation, and no zeros
        before = generator(mel, noise)
        middle = frames // 2
        mel[..., middle] += 1
        noise[..., middle] += 1
        heard = (generator(mel, noise) != before).reshape(frames, hop).any(dim=1).nonzero().flatten()
    assert middle - context <= heard.min()
    assert heard.max() <= middle + context
    assert (heard.max() - heard.min()) / 2 > 0.5 * context  # a bound that adds up simply, but no waste


def test_without_autograd_the_audio_is_the_same():
    torch.manual_seed(0)
    for dtype, within in ((torch.float64, 1e-12), (torch.float32, 1e-6)):
        generator = Generator(**SMALL).to(dtype)
        mel, noise = torch.randn(2, 5, 9, dtype=dtype), torch.randn(2, 4, 9, dtype=dtype)
        kept = mel.clone(), noise.clone()
        expected = generator(mel, noise).detach()
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                torch.testing.assert_close(generator(mel, noise), expected, rtol=0, atol=within)
        assert torch.equal(mel, kept[0])
        assert torch.equal(noise, kept[1])


@pytest.mark.parametrize("strides", [(8, 8, 4), (2, 3), (5,)])
@pytest.mark.parametrize("cut", [(0, 0), (1, 0), (10, 10), (17, 3), (0, 25)])
def test_what_is_cut_away_changes_nothing_of_the_rest(strides, cut):
    torch.manual_seed(0)
    generator = Generator(**SMALL | {"strides": strides}).double()
    mel, noise, hop = torch.randn(2, 5, 40).double(), torch.randn(2, 4, 40).double(), math.prod(strides)
    whole = generator(mel, noise)[..., cut[0] * hop : (40 - cut[1]) * hop]
    torch.testing.assert_close(generator(mel, noise, cut=cut), whole, rtol=0, atol=1e-12)
    with torch.no_grad():
        torch.testing.assert_close(generator(mel, noise, cut=cut), whole, rtol=0, atol=1e-12)


def test_the_last_block_makes_next_to_nothing_of_what_is_cut_away():
    generator, made = Generator(), []
    for block in generator.resblocks:
        block.register_forward_hook(lambda block, _, x: made.append(x.shape[2] / block.hop_size))
    context = generator.context_frames
    with torch.no_grad():
        audio = generator(torch.randn(1, 100, 50), cut=(context, context))
    assert audio.shape == (1, 1, (50 - 2 * context) * 256)
    assert made == [50 - 2 * 9, 50 - 2 * 15, 50 - 2 * 16]


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [4, 60])
def test_packed_kernels_are_those_of_the_plain_convolution(batch, frames):
    torch.manual_seed(0)
    generator = Generator(channels=16)
    mel, noise = torch.randn(batch, 100, frames), torch.randn(batch, 64, frames)
    expected = generator(mel, noise).detach()
    generator.remove_weight_norm()
    generator.requires_grad_(False)
    torch.testing.assert_close(generator(mel, noise), expected, rtol=0, atol=1e-5)
    rows = generator.resblocks[0].kernel_predictor._frozen[1]
    assert all(weight.is_mkldnn for weight in rows) == torch.backends.mkldnn.is_available()
    with torch.backends.mkldnn.flags(enabled=False):
        torch.testing.assert_close(generator(mel, noise), expected, rtol=0, atol=1e-5)
    torch.testing.assert_close(generator(mel, noise), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])  # packed kernels, and matrix products
@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_a_frozen_generator_gives_the_mel_its_gradient(dtype, mode):
    torch.manual_seed(0)
    generator = Generator(**SMALL).to(dtype)
    mel, noise = torch.randn(1, 5, 9, dtype=dtype, requires_grad=True), torch.randn(1, 4, 9, dtype=dtype)
    [expected] = torch.autograd.grad(generator(mel, noise).square().mean(), mel)
    generator.remove_weight_norm()
    generator.requires_grad_(False)
    with mode():
        generator(mel, noise)  # from here on its kernels are kept
    [gradient] = torch.autograd.grad(generator(mel, noise).square().mean(), mel)
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-8)


def test_frozen_weights_that_change_are_heard():
    generator = Generator(**SMALL)
    generator.remove_weight_norm()
    generator.requires_grad_(False)
    mel, noise = torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    before = generator(mel, noise)
    for changed in ("kernel_conv.weight", "kernel_conv.bias"):
        predictor = generator.resblocks[0].kernel_predictor
        predictor.get_parameter(changed).mul_(1.5)
        after = generator(mel, noise)
        assert not torch.equal(after, before)
        generator.requires_grad_(True)  # nothing is kept of weights that may train
        torch.testing.assert_close(generator(mel, noise), after, rtol=0, atol=1e-6)
        generator.requires_grad_(False)
        before = after


def test_nothing_is_kept_of_weights_that_train():
    """A fused optimizer changes them without a trace: same tensor, same version."""
    generator = Generator(**SMALL)
    mel, noise = torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    for _ in range(2):
        with torch.no_grad():
            generator(mel, noise)
        assert all(block.kernel_predictor._frozen is None for block in generator.resblocks)
        generator.remove_weight_norm()


def test_kernels_are_new_after_weights_were_frozen_trained_and_frozen():
    generator = Generator(**SMALL)
    generator.remove_weight_norm()
    mel, noise = torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    optimizer = torch.optim.AdamW(generator.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        generator.requires_grad_(False)(mel, noise)
    generator.requires_grad_(True)(mel, noise).square().mean().backward()
    optimizer.step()
    with torch.no_grad():
        audio = generator.requires_grad_(False)(mel, noise)
    fresh = Generator(**SMALL)
    fresh.remove_weight_norm()
    fresh.load_state_dict(generator.state_dict())
    torch.testing.assert_close(audio, fresh(mel, noise), rtol=0, atol=1e-5)


@pytest.mark.parametrize("grad", [True, False])
def test_a_trace_may_be_saved(grad, tmp_path):
    generator, mel, noise = Generator(**SMALL), torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    generator.remove_weight_norm()
    with torch.set_grad_enabled(grad):
        torch.jit.trace(generator, (mel, noise)).save(tmp_path / "generator.pt")
        loaded = torch.jit.load(tmp_path / "generator.pt")
        torch.testing.assert_close(loaded(mel, noise), generator(mel, noise), rtol=0, atol=1e-5)


def test_removing_weight_norm_keeps_the_output_and_may_be_repeated():
    generator = Generator(**SMALL)
    mel, noise = torch.randn(2, 5, 7), torch.randn(2, 4, 7)
    before = generator(mel, noise)
    for _ in range(2):
        generator.remove_weight_norm()
        torch.testing.assert_close(generator(mel, noise), before, rtol=0, atol=1e-6)
    assert not any("parametrizations" in name for name in generator.state_dict())


def test_noise_comes_from_the_given_generator():
    model, mel = Generator(**SMALL), torch.randn(2, 5, 6)
    drawn = model(mel, generator=torch.Generator().manual_seed(3))
    given = model(mel, torch.randn(2, 4, 6, generator=torch.Generator().manual_seed(3)))
    torch.testing.assert_close(drawn, given, rtol=0, atol=0)
    assert not torch.equal(drawn, model(mel))


def test_config_is_plain_and_rebuilds():
    generator = Generator(**SMALL, leaky_slope=0.1)
    config = json.loads(json.dumps(generator.config))
    assert config == generator.config
    again = Generator(**config)
    again.load_state_dict(generator.state_dict())
    generator.config["strides"].append(9)  # a copy: the generator's own stays
    assert again.config == generator.config
    mel, noise = torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    torch.testing.assert_close(again(mel, noise), generator(mel, noise), rtol=0, atol=0)


def test_deepcopy_after_a_training_forward():
    generator, mel, noise = Generator(**SMALL), torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    generator(mel, noise).sum().backward()
    twin = copy.deepcopy(generator)
    torch.testing.assert_close(twin(mel, noise), generator(mel, noise), rtol=0, atol=0)


def test_every_parameter_gets_a_finite_gradient():
    generator = Generator(**SMALL)
    generator(torch.randn(2, 5, 6)).square().sum().backward()
    for name, parameter in generator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_bfloat16_autocast_is_close_to_single_precision():
    torch.manual_seed(0)
    generator, mel, noise = Generator(**SMALL), torch.randn(2, 5, 6), torch.randn(2, 4, 6)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        audio = generator(mel, noise)
    torch.testing.assert_close(audio.float(), generator(mel, noise), rtol=0, atol=0.05)


def test_all_mistakes_are_reported_at_once():
    with pytest.raises(ValueError, match="Generator") as error:
        Generator(
            n_mels=0,
            strides=(8, 1),
            dilations=(),
            kernel_size=4,
            leaky_slope=-1,
            predictor_blocks=-1,
            predictor_kernel_size=2,
            predictor_dropout=1.0,
        )
    for word in ("n_mels", "strides", "dilations", "kernel_size must be odd, got 4", "leaky_slope", "predictor_blocks"):
        assert word in str(error.value)
    assert "predictor_kernel_size must be odd, got 2" in str(error.value)
    assert "predictor_dropout" in str(error.value)


def test_wrong_inputs_are_named():
    generator = Generator(**SMALL)
    with pytest.raises(ValueError, match=r"\(batch, 5, frames\), got \(1, 80, 4\)"):
        generator(torch.randn(1, 80, 4))
    with pytest.raises(ValueError, match=r"got \(5, 4\)"):
        generator(torch.randn(5, 4))
    with pytest.raises(ValueError, match=r"noise of shape \(1, 4, 4\) for this mel, got \(1, 4, 3\)"):
        generator(torch.randn(1, 5, 4), torch.randn(1, 4, 3))


def test_kernels_are_new_where_other_weights_have_the_same_address():
    """As an allocator may give a block again. Averages come and go by ``.data``, which leaves the version as it was."""
    generator = Generator(**SMALL)
    generator.remove_weight_norm()
    generator.requires_grad_(False)
    mel, noise = torch.randn(1, 5, 4), torch.randn(1, 4, 4)
    weight = generator.resblocks[0].kernel_predictor.kernel_conv.weight
    block = weight.numpy().copy()
    seen = []
    for factor in (1.0, 1.5):
        block *= factor
        weight.data = torch.from_numpy(block)
        seen.append((weight.data_ptr(), weight._version))
        audio = generator(mel, noise)
    assert seen[0] == seen[1]
    assert torch.equal(audio, copy.deepcopy(generator)(mel, noise))
