"""The plain step: the reference's mathematics and order of work, without optimizations, on our modules' weights.

Source: mindslab-ai/univnet (trainer, LVC, discriminators), written independently from its description.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from univnet.losses import Judged, LeastSquares, mean_over_parts
from univnet.models import Discriminator, Generator
from univnet.module import Batch, UnivNet


def location_variable_convolution(x: Tensor, kernel: Tensor, bias: Tensor, hop_size: int) -> Tensor:
    """Convolve by the formula, with unfold and einsum; shapes as in ``univnet.models.lvc``."""
    half = kernel.shape[3] // 2
    windows = F.pad(x, (half, half)).unfold(2, hop_size + 2 * half, hop_size).unfold(3, 2 * half + 1, 1)
    y = torch.einsum("bilsk,biokl->bols", windows, kernel)
    return (y + bias.unsqueeze(-1)).flatten(2)


def generate(generator: Generator, mel: Tensor, noise: Tensor) -> Tensor:
    """Synthesize like ``generator``, with all layers' kernels at once and nothing in place."""
    slope = generator.leaky_slope
    x = generator.conv_pre(noise)
    block: Any
    for block in generator.resblocks:
        x = block.convt_pre(F.leaky_relu(x, slope))
        predictor = block.kernel_predictor
        hidden = F.leaky_relu(predictor.input_conv(mel), slope)
        for residual in predictor.resblocks:
            y = F.leaky_relu(residual.conv1(residual.dropout(hidden)), slope)
            hidden = hidden + F.leaky_relu(residual.conv2(y), slope)
        kernels = predictor.kernel_conv(hidden).unflatten(1, predictor.kernel_shape)
        biases = predictor.bias_conv(hidden).unflatten(1, predictor.bias_shape)
        for layer, kernel, bias in zip(block.resblocks, kernels.unbind(1), biases.unbind(1), strict=True):
            y = F.leaky_relu(layer.conv(F.leaky_relu(x, slope)), slope)
            gate, value = location_variable_convolution(y, kernel, bias, block.hop_size).chunk(2, dim=1)
            x = x + torch.sigmoid(gate) * torch.tanh(value)
    return torch.tanh(generator.conv_post(F.leaky_relu(x, slope)))


def judge(discriminator: Discriminator, audio: Tensor) -> dict[str, Tensor]:
    """Score like ``discriminator``, on bins × frames and steps × phases in torch's default layout."""
    scores = {}
    sub: Any
    for name, sub in [*discriminator.mrd.discriminators.items(), *discriminator.mpd.discriminators.items()]:
        if name.startswith("mrd"):
            view = sub.spectrogram(audio).unsqueeze(1).contiguous()
        else:
            period = int(name.removeprefix("mpd_"))
            view = F.pad(audio, (0, -audio.shape[-1] % period), "reflect").unflatten(-1, (-1, period))
        convs: list[Any] = [*sub.get_submodule("convs").children(), sub.conv_post]
        for conv in convs:
            view = F.conv2d(view, conv.weight, conv.bias, conv.stride, conv.padding)
            if conv is not sub.conv_post:
                view = F.leaky_relu(view, sub.leaky_slope)
        scores[name] = view.flatten(1)
    return scores


def step(module: UnivNet, batch: Batch, noise: Tensor, optimizers: tuple[Optimizer, Optimizer]) -> None:
    """Update the generator, then the discriminator: three discriminator forwards, nothing frozen."""
    of_generator, of_discriminator = optimizers
    assert isinstance(module.generator, Generator)
    assert isinstance(module.discriminator, Discriminator)
    of_generator.zero_grad()
    fake = generate(module.generator, batch["mel"], noise)
    reconstruction = torch.stack(list(module.stft_loss(fake, batch["audio"]).values())).sum()
    scores = judge(module.discriminator, fake)
    losses = LeastSquares()
    adversarial = mean_over_parts({k: losses.generator(Judged(score)) for k, score in scores.items()})["loss"]
    (adversarial + module.stft_weight * reconstruction).backward()
    of_generator.step()
    of_discriminator.zero_grad()
    fakes = judge(module.discriminator, fake.detach())
    reals = judge(module.discriminator, batch["audio"])
    judged = {k: losses.discriminator(Judged(reals[k]), Judged(fakes[k])) for k in reals}
    mean_over_parts(judged)["loss"].backward()
    of_discriminator.step()
