"""Part (b): outputs and gradients on the device against float64 on the CPU, and two ways to the same numbers.

Errors are Euclidean norms of differences, relative to the norm of what is right.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from univnet.audio import LogMelSpectrogram
from univnet.benchmarks.contests import HOPS
from univnet.benchmarks.gpu.child import guarded
from univnet.benchmarks.gpu.scale import Row, Scale
from univnet.gan import Updates
from univnet.losses import MultiResolutionSTFTLoss
from univnet.models import Generator
from univnet.models.lvc import location_variable_convolution
from univnet.module import UnivNet

# The largest errors of outputs and of gradients. TF32 keeps 10 bits of each factor, bfloat16 7. Where a magnitude or
# the input of a leaky ReLU is about zero, a rounding error changes the sign of a gradient.
LARGEST = {"float32": (1e-4, 1e-2), "tf32": (1e-2, 1e-1), "bf16": (5e-2, 3e-1)}
Function = Callable[..., Tensor]


def rows(scale: Scale) -> Iterator[Row]:
    """Yield a row for each function and precision, and for each way of training."""
    torch.manual_seed(0)
    for name, (function, inputs) in functions(scale).items():
        for precision in LARGEST if scale.cuda else ("float32", "bf16"):
            yield guarded(f"{name}, {precision}", against, scale, function, inputs, precision)
    yield guarded("one discriminator forward for both players, float32", shared_forward, scale)
    for precision in ("32-true", "bf16-mixed", *(["16-mixed"] if scale.cuda else [])):
        yield guarded(f"training, {precision}", training, scale, precision)
    if scale.compile:
        yield guarded("compiled, float32", compiled, scale)


def functions(scale: Scale) -> dict[str, tuple[nn.Module | Function, list[Tensor]]]:
    """Return what is compared, with inputs in float64 on the CPU."""
    audio = 0.1 * torch.randn(1, 1, 8192, dtype=torch.float64)
    mel, noise = torch.randn(1, 100, 16, dtype=torch.float64), torch.randn(1, 64, 16, dtype=torch.float64)
    other = 0.1 * torch.randn_like(audio)
    found: dict[str, tuple[nn.Module | Function, list[Tensor]]] = {
        f"generator of {channels} channels": (Generator(channels=channels), [mel, noise]) for channels in scale.channels
    }
    found |= {f"discriminator {name}": (part, [audio]) for name, part in scale.discriminator().parts().items()}
    found |= {
        "STFT loss": (_summed(MultiResolutionSTFTLoss()), [audio, other]),
        "mel-spectrogram": (LogMelSpectrogram(), [audio]),
    }
    for hop in HOPS:
        x, bias = torch.randn(2, 8, 6 * hop, dtype=torch.float64), torch.randn(2, 16, 6, dtype=torch.float64)
        kernel = 0.2 * torch.randn(2, 8, 16, 3, 6, dtype=torch.float64)
        found[f"location-variable convolution, hop {hop}"] = (_convolution(hop), [x, kernel, bias])
    return found


def _summed(loss: nn.Module) -> Function:
    return lambda fake, real: torch.stack(list(loss(fake, real).values())).sum()


def _convolution(hop: int) -> Function:
    return lambda x, kernel, bias: location_variable_convolution(x, kernel, bias, hop)


def against(scale: Scale, function: nn.Module | Function, inputs: list[Tensor], precision: str) -> Row:
    """Compare the output, and the gradients of the inputs and the weights together."""
    right = _with_gradients(function, inputs, "cpu", torch.float64)
    with scale.precision(precision):
        ours = _with_gradients(function, inputs, scale.device, torch.float32)
    output, gradient = (_relative(a, b) for a, b in zip(ours, right, strict=True))
    most = LARGEST[precision]
    right_so = output <= most[0] and gradient <= most[1]
    return {"output": output, "at most": most[0], "gradients": gradient, "at most ": most[1], "right": right_so}


def _with_gradients(
    function: nn.Module | Function, inputs: list[Tensor], device: str, dtype: torch.dtype
) -> tuple[Tensor, Tensor]:
    if isinstance(function, nn.Module):
        function = copy.deepcopy(function).to(device, dtype)
    leaves = [value.to(device, dtype).requires_grad_() for value in inputs]
    weights = list(function.parameters()) if isinstance(function, nn.Module) else []
    output = function(*leaves)
    draw = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.autocast(torch.device(device).type, enabled=False):
        gradients = torch.autograd.grad((output.to(dtype) * draw.to(device, dtype)).sum(), [*leaves, *weights])
    return output.detach(), torch.cat([each.flatten() for each in gradients])


def _relative(ours: Tensor, right: Tensor) -> float:
    difference = ours.detach().cpu().double() - right.double()
    return float(torch.linalg.vector_norm(difference) / torch.linalg.vector_norm(right.double()))


def shared_forward(scale: Scale) -> Row:
    """Compare both players' gradients with those of a forward for each of them, and count the forwards of a part."""
    module, batch = scale.module(scale.channels[0]), scale.noise(1)
    parts, weights = module.discriminator.parts(), list(module.discriminator.parameters())
    counts = []

    def gradients(shared: bool) -> Tensor:
        torch.manual_seed(1)
        calls: list[Tensor] = []
        hooks = [next(iter(parts.values())).register_forward_pre_hook(lambda _, inputs: calls.extend(inputs[:1]))]
        if not shared:  # weights with hooks: each player has its own forward
            hooks += [weight.register_hook(lambda grad: grad) for weight in weights]
        fake, judge = module.generate(batch), module._shared_forward
        terms = [
            judge.generator_terms(parts, fake, batch["audio"]),
            judge.discriminator_terms(parts, fake.detach(), batch["audio"]),
        ]
        sums = [torch.stack([each["loss"] for each in of.values()]).sum() for of in terms]
        own = torch.autograd.grad(sums[0], list(module.generator.parameters()), retain_graph=True)
        found = torch.cat([each.flatten() for each in (*own, *torch.autograd.grad(sums[1], weights))])
        for hook in hooks:
            hook.remove()
        counts.append(len(calls))
        return found

    with scale.precision("float32"):
        error = _relative(gradients(True), gradients(False).cpu())
    fewer = counts[0] < counts[1]
    return {"gradients": error, "at most": 1e-4, "forwards": counts, "right": error <= 1e-4 and fewer}


def training(scale: Scale, precision: str) -> Row:
    """Train with accumulation, clipping and, in fp16, a loss scaler for each player: weights move and stay finite."""
    twice = Updates(accumulate=2, clip_norm=1.0)
    module = scale.module(scale.channels[0], generator_updates=twice, discriminator_updates=twice).cpu()
    before = _weights(module)
    fitted(scale, module, updates=3, precision=precision)
    after = _weights(module)
    moved = {name: bool((after[name] != value).any()) for name, value in before.items()}
    finite = all(bool(value.isfinite().all()) for value in after.values())
    skipped = {name: player.nonfinite for name, player in module.updates.items()}
    steps = {name: player.steps for name, player in module.updates.items()}
    return {"updates": steps, "skipped": skipped, "right": finite and all(moved.values())}


def compiled(scale: Scale) -> Row:
    """Compare the weights after three updates with those of updates that are not compiled."""
    found = []
    for compile in (False, True):
        module = scale.module(scale.channels[0], compile=compile).cpu()
        fitted(scale, module, updates=3)
        found.append(torch.cat([*_weights(module).values()]))
    error = _relative(found[1], found[0])
    return {"weights": error, "at most": 1e-3, "right": error <= 1e-3}


def fitted(scale: Scale, module: UnivNet, updates: int, **options: Any) -> lightning.Trainer:
    """Train on noise with a real trainer that writes nothing."""
    torch.manual_seed(2)
    batches = [{name: value[0].cpu() for name, value in scale.noise(1).items()} for _ in range(4)]
    trainer = quiet_trainer(scale, max_steps=updates, **options)
    trainer.fit(module, DataLoader(batches, batch_size=2))  # type: ignore[arg-type]
    return trainer


def quiet_trainer(scale: Scale, **options: Any) -> lightning.Trainer:
    """Return a trainer on the device that writes and draws nothing."""
    device = torch.device(scale.device)
    defaults: Mapping[str, Any] = {
        "accelerator": device.type,
        "devices": [device.index or 0] if scale.cuda else 1,
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "limit_val_batches": 0,
    }
    return lightning.Trainer(**{**defaults, **options})


def _weights(module: UnivNet) -> dict[str, Tensor]:
    return {
        name: torch.cat([p.detach().cpu().flatten() for p in getattr(module, name).parameters()])
        for name in module.updates
    }
