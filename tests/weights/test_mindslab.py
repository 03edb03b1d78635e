"""The reference's checkpoints: both players there and back, and its own forward formulas on what is written."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from support.hostile import hostile_file, hostile_pickle
from torch import Tensor
from torch.nn.utils import weight_norm

from univnet import Generator, LogMelSpectrogram
from univnet.models import (
    Discriminator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.weights.mindslab import from_mindslab, read_mindslab, to_mindslab, write_mindslab


def shaken(module: Any) -> Any:
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module.eval()


@pytest.fixture(scope="module")
def players() -> tuple[Generator, Discriminator]:
    torch.manual_seed(0)
    return shaken(Generator(channels=16)), shaken(Discriminator())


@pytest.fixture
def theirs(players: Any) -> dict[str, Any]:
    return to_mindslab(*players, LogMelSpectrogram(), step=7, epoch=2)


def effective(state: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    """Return a convolution's weight as old-style weight normalization defines it, and its bias."""
    g, v = state[f"{name}.weight_g"], state[f"{name}.weight_v"]
    return g * v / v.flatten(1).norm(dim=1).view(g.shape), state[f"{name}.bias"]


def mrd_scores(state: dict[str, Tensor], number: int, audio: Tensor, fft: int, hop: int, window: int) -> Tensor:
    """Score by the reference's formula: rectangular window, bins × frames, strides (1, 2)."""
    x = F.pad(audio, ((fft - hop) // 2,) * 2, "reflect").squeeze(1)
    x = torch.stft(x, fft, hop, window, torch.ones(window), center=False, return_complex=True)
    x = torch.view_as_real(x).norm(dim=-1).unsqueeze(1)
    for n, (stride, padding) in enumerate([((1, 1), (1, 4)), *[((1, 2), (1, 4))] * 3, ((1, 1), (1, 1))]):
        weight, bias = effective(state, f"MRD.discriminators.{number}.convs.{n}")
        x = F.leaky_relu(F.conv2d(x, weight, bias, stride, padding), 0.2)
    return F.conv2d(x, *effective(state, f"MRD.discriminators.{number}.conv_post"), padding=(1, 1)).flatten(1)


def mpd_scores(state: dict[str, Tensor], number: int, audio: Tensor, period: int) -> Tensor:
    """Score by the reference's formula: time × phases, strides (3, 1)."""
    x = F.pad(audio, (0, -audio.shape[2] % period), "reflect")
    x = x.reshape(len(audio), 1, -1, period)
    for n in range(5):
        weight, bias = effective(state, f"MPD.discriminators.{number}.convs.{n}")
        x = F.leaky_relu(F.conv2d(x, weight, bias, (3 if n < 4 else 1, 1), (2, 0)), 0.2)
    return F.conv2d(x, *effective(state, f"MPD.discriminators.{number}.conv_post"), padding=(1, 0)).flatten(1)


def lvc(x: Tensor, kernel: Tensor, bias: Tensor, hop: int) -> Tensor:
    """Convolve frame by frame: kernel (batch, in, out, K, frames)."""
    padded = F.pad(x, (1, 1))
    frames = [
        torch.stack(
            [
                F.conv1d(padded[b, :, t * hop : (t + 1) * hop + 2], kernel[b, ..., t].transpose(0, 1), bias[b, :, t])
                for b in range(len(x))
            ]
        )
        for t in range(kernel.shape[4])
    ]
    return torch.cat(frames, dim=2)


def generated(state: dict[str, Tensor], mel: Tensor, noise: Tensor, channels: int) -> Tensor:
    """Make audio by the reference's formula."""

    def conv(x: Tensor, name: str, **how: Any) -> Tensor:
        return F.conv1d(x, *effective(state, name), **how)

    def leaky(x: Tensor) -> Tensor:
        return F.leaky_relu(x, 0.2)

    x, hop = conv(F.pad(noise, (3, 3), "reflect"), "conv_pre"), 1
    for i, stride in enumerate((8, 8, 4)):
        block, hop = f"res_stack.{i}", hop * stride
        x = F.conv_transpose1d(leaky(x), *effective(state, f"{block}.convt_pre.1"), stride=stride, padding=stride // 2)
        c = leaky(conv(mel, f"{block}.kernel_predictor.input_conv.0", padding=2))
        for j in range(3):
            part = f"{block}.kernel_predictor.residual_convs.{j}"
            c = c + leaky(conv(leaky(conv(c, f"{part}.1", padding=1)), f"{part}.3", padding=1))
        shape = (len(mel), 4, channels, 2 * channels, 3, mel.shape[2])
        kernels = conv(c, f"{block}.kernel_predictor.kernel_conv", padding=1).view(shape)
        biases = conv(c, f"{block}.kernel_predictor.bias_conv", padding=1).view(len(mel), 4, 2 * channels, -1)
        for j, dilation in enumerate((1, 3, 9, 27)):
            y = leaky(conv(leaky(x), f"{block}.conv_blocks.{j}.1", padding=dilation, dilation=dilation))
            gate, value = lvc(y, kernels[:, j], biases[:, j], hop).chunk(2, 1)
            x = x + torch.sigmoid(gate) * torch.tanh(value)
    return torch.tanh(conv(F.pad(leaky(x), (3, 3), "reflect"), "conv_post.1"))


@torch.no_grad()
def test_the_references_formulas_give_the_same_scores(players: Any, theirs: dict[str, Any], speech: Any) -> None:
    audio = torch.from_numpy(speech[20000:28009].reshape(1, 1, -1))
    ours, state, hp = players[1](audio), theirs["model_d"], yaml.safe_load(theirs["hp_str"])
    resolutions = eval(hp["mrd"]["resolutions"])  # as the reference does
    assert resolutions == [(1024, 120, 600), (2048, 240, 1200), (512, 50, 240)]
    for number, resolution in enumerate(resolutions):
        expected = mrd_scores(state, number, audio, *resolution)
        torch.testing.assert_close(ours[f"mrd_{resolution[0]}"], expected, rtol=0, atol=1e-5)
    for number, period in enumerate(hp["mpd"]["periods"]):
        torch.testing.assert_close(ours[f"mpd_{period}"], mpd_scores(state, number, audio, period), rtol=0, atol=1e-5)
    assert len(ours) == 8
    assert all(scores.std() > 1e-5 for scores in ours.values())


@torch.no_grad()
def test_the_references_formulas_give_the_same_audio(players: Any, theirs: dict[str, Any]) -> None:
    mel, noise = torch.randn(2, 100, 6), torch.randn(2, 64, 6)
    expected = generated(theirs["model_g"], mel, noise, 16)
    assert expected.std() > 1e-3
    torch.testing.assert_close(players[0](mel, noise), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("channels", [16, 32])
def test_ours_to_theirs_to_ours_changes_no_bit(channels: int, tmp_path: Path) -> None:
    torch.manual_seed(1)
    generator, discriminator, mel = Generator(channels=channels), shaken(Discriminator()), LogMelSpectrogram()
    path = write_mindslab(tmp_path / "theirs.pt", to_mindslab(generator, discriminator, mel, step=7, epoch=2))
    back = read_mindslab(path)
    assert (back.step, back.epoch, back.mel.config) == (7, 2, mel.config)
    assert back.generator.config == generator.config
    for ours, again in ((generator, back.generator), (discriminator, back.discriminator)):
        assert again is not None
        state = again.state_dict()
        assert state.keys() == ours.state_dict().keys()
        assert all(torch.equal(state[name], value) for name, value in ours.state_dict().items())


def test_folded_weights_are_written_weight_normed(players: Any) -> None:
    folded = Generator(channels=16)
    folded.remove_weight_norm()
    back = from_mindslab(to_mindslab(folded, players[1], LogMelSpectrogram())).generator
    back.remove_weight_norm()
    torch.testing.assert_close(back.state_dict(), folded.state_dict(), rtol=1e-6, atol=1e-7)


def test_their_training_can_resume_it(theirs: dict[str, Any]) -> None:
    """Their modules call old-style weight_norm, and their AdamW loads the optimizers' states."""
    assert list(theirs) == ["model_g", "model_d", "optim_g", "optim_d", "step", "epoch", "hp_str", "githash"]
    conv = weight_norm(torch.nn.Conv1d(64, 16, 7))
    conv.load_state_dict({n.removeprefix("conv_pre."): v for n, v in theirs["model_g"].items() if "conv_pre" in n})
    for player in "gd":
        parameters = [torch.nn.Parameter(value.clone()) for value in theirs[f"model_{player}"].values()]
        optimizer = torch.optim.AdamW(parameters, lr=1e-3)
        optimizer.load_state_dict(theirs[f"optim_{player}"])
        assert optimizer.param_groups[0]["lr"] == 1e-4
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.9)


def test_a_checkpoint_from_distributed_training_or_without_discriminators_loads(theirs: dict[str, Any]) -> None:
    prefixed = {f"module.{name}": value for name, value in theirs["model_g"].items()}
    model = from_mindslab({"model_g": prefixed, "hp_str": theirs["hp_str"]})
    assert model.discriminator is None
    assert model.generator.config["channels"] == 16


def without(state: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key: value for key, value in state.items() if key != name}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda c: {"model": {}}, "it has no model_g with hp_str"),
        (lambda c: {**c, "hp_str": "a: ["}, "its hp_str is no YAML"),
        (lambda c: {**c, "hp_str": "!!python/object/apply:os.system ['true']"}, "its hp_str is no YAML"),
        (lambda c: {**c, "hp_str": "gen: {}"}, "its hp_str lacks 'noise_dim'"),
        (lambda c: {**c, "hp_str": c["hp_str"].replace("(512, 50", "(f(), 50")}, "hp_str cannot be built: malformed"),
        (
            lambda c: {**c, "hp_str": c["hp_str"].replace("spectral_norm: false", "spectral_norm: true")},
            "spectral norm",
        ),
        (lambda c: {**c, "hp_str": c["hp_str"].replace("channel_size: 16", "channel_size: 32")}, r"\d+ more differ"),
        (lambda c: {**c, "hp_str": c["hp_str"].replace("hop_length: 256", "hop_length: 300")}, "hop_length is 300"),
        (lambda c: {**c, "model_g": {}}, "model_g of the checkpoint holds no weights"),
        (lambda c: {**c, "model_d": {"a": 3}}, "model_d of the checkpoint holds 'a', which is no weight"),
        (
            lambda c: {**c, "model_d": without(c["model_d"], "MPD.discriminators.2.convs.1.bias")},
            r"do not fit what it describes: MPD\.discriminators\.2\.convs\.1\.bias is missing in the file",
        ),
    ],
)
def test_what_does_not_fit_is_told(theirs: dict[str, Any], change: Any, told: str) -> None:
    with pytest.raises(ValueError, match=told) as refused:
        from_mindslab(change(theirs))
    assert len(str(refused.value)) < 500


def test_hostile_and_truncated_files_are_refused(theirs: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "theirs.pt"
    ran = hostile_file(path, theirs)
    with pytest.raises(ValueError, match="holds code besides weights and is not loaded"):
        read_mindslab(path)
    hostile_pickle(path)
    with pytest.raises(ValueError, match=r"theirs\.pt holds code|theirs\.pt is no file of weights"):
        read_mindslab(path)
    assert not ran.exists()
    write_mindslab(path, theirs)
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ValueError, match="is damaged or no file of weights"):
        read_mindslab(path)


def test_what_their_code_cannot_express_is_all_named() -> None:
    generator = Generator(channels=8, predictor_blocks=1, predictor_channels=16)
    discriminator = Discriminator(
        MultiResolutionSpectrogramDiscriminator(channels=4), MultiPeriodDiscriminator((2,), leaky_slope=0.1)
    )
    with pytest.raises(ValueError, match="the reference's code cannot express this model") as refused:
        to_mindslab(generator, discriminator, LogMelSpectrogram(floor=1e-4))
    for told in (
        "predictor_channels is 16, there 64",
        "predictor_blocks is 1, there 3",
        "floor is 0.0001",
        "has another shape",
        "leaky_slope is not 0.2",
    ):
        assert told in str(refused.value)
