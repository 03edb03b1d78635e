import copy
import runpy
import sys

import pytest
import torch
from transformers import UnivNetConfig, UnivNetModel

from univnet import convert
from univnet.convert import from_transformers, load_plain_state_dict, plain_state_dict, to_transformers
from univnet.models import Discriminator, Generator

SMALL = {
    "n_mels": 5,
    "noise_channels": 6,
    "channels": 4,
    "strides": (3, 2),
    "dilations": (1, 3),
    "kernel_size": 5,
    "leaky_slope": 0.1,
    "predictor_channels": 6,
    "predictor_blocks": 2,
    "predictor_kernel_size": 5,
}


@torch.no_grad()
def randomize(model):
    """Weights that give audio of a speech-like size: neither tiny nor saturated."""
    for name, parameter in model.named_parameters():
        if name.endswith(("bias", "original0")):
            parameter.copy_(1.2 * parameter + 0.1 * torch.randn_like(parameter))
        elif not name.endswith("original1"):
            # The predicted kernels of K·in taps should be as small as the other weights, or rounding errors grow.
            fan_in = parameter[0].numel() * (100 if "kernel_conv" in name else 1)
            parameter.copy_(torch.randn_like(parameter) / fan_in**0.5)
    return model.eval()


@torch.no_grad()
def assert_same_audio(ours, theirs, frames, dtype=torch.float32, tolerance=1e-5):
    mel = torch.randn(2, ours.n_mels, frames, dtype=dtype)
    noise = torch.randn(2, ours.noise_channels, frames, dtype=dtype)
    expected = theirs.eval()(mel.mT, noise.mT).waveforms[:, None]
    assert expected.std() > 0.05
    torch.testing.assert_close(ours.eval()(mel, noise), expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("config", [{"channels": 16}, {"channels": 32}, SMALL], ids=["c16", "c32", "small"])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_ours_to_transformers(config, dtype, tolerance):
    torch.manual_seed(0)
    ours = randomize(Generator(**config)).to(dtype)
    arguments, state_dict = to_transformers(ours)
    theirs = UnivNetModel(UnivNetConfig(**arguments)).to(dtype)
    theirs.load_state_dict(state_dict)
    for frames in (4, 13):
        assert_same_audio(ours, theirs, frames, dtype, tolerance)


@pytest.mark.parametrize("config", [{"channels": 16}, {"channels": 32}, SMALL], ids=["c16", "c32", "small"])
def test_transformers_to_ours(config):
    torch.manual_seed(0)
    arguments, _ = to_transformers(Generator(**config))
    theirs = randomize(UnivNetModel(UnivNetConfig(**arguments)))
    ours = from_transformers(theirs)
    assert ours.config == Generator(**config).config
    assert_same_audio(ours, theirs, 13)
    again = from_transformers({"model_type": "univnet", **arguments}, theirs.state_dict())
    assert_same_audio(again, theirs, 7)
    theirs.apply_weight_norm()
    assert_same_audio(from_transformers(theirs.config, theirs.state_dict()), theirs, 7)


@pytest.mark.parametrize("make", [lambda: Generator(**SMALL), Discriminator], ids=["generator", "discriminator"])
def test_plain_weights_round_trip(make):
    module, other = make(), make()
    before = copy.deepcopy(module.state_dict())
    plain = plain_state_dict(module)
    assert not any("parametrizations" in name for name in plain)
    load_plain_state_dict(other, plain)
    for name, tensor in plain_state_dict(other).items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-6, atol=1e-7)
    plain["fresh"] = next(iter(plain.values())).zero_()  # copies: the module must not change
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_plain_weights_load_with_and_without_weight_norm():
    source, folded = randomize(Generator(**SMALL)), Generator(**SMALL)
    folded.remove_weight_norm()
    load_plain_state_dict(folded, plain_state_dict(source))
    mel, noise = torch.randn(1, 5, 6), torch.randn(1, 6, 6)
    torch.testing.assert_close(folded(mel, noise), source(mel, noise), rtol=0, atol=1e-6)
    load_plain_state_dict(source, source.state_dict())
    torch.testing.assert_close(folded(mel, noise), source(mel, noise), rtol=0, atol=1e-6)


def test_what_cannot_be_converted_is_named():
    with pytest.raises(ValueError, match="equal, got 64 and 32"):
        to_transformers(Generator(predictor_channels=32))
    arguments, plain = to_transformers(Generator(**SMALL))
    with pytest.raises(ValueError, match=r"resblock_dilation_sizes must be the same for every block"):
        from_transformers(arguments | {"resblock_dilation_sizes": [[1, 3], [1, 9]]}, plain)
    with pytest.raises(RuntimeError, match=r"conv_pre\.bias"):
        from_transformers(arguments, {name: tensor for name, tensor in plain.items() if name != "conv_pre.bias"})
    plain["conv_post.weight"].zero_()
    with pytest.raises(ValueError, match=r"conv_post\.weight has a filter of zeros"):
        from_transformers(arguments, plain)


def test_transformers_is_optional(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)  # importing it now raises
    names = runpy.run_path(convert.__file__)
    names["to_transformers"](Generator(**SMALL))
