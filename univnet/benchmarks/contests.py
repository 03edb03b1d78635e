"""The contests: each makes its contestants, functions without arguments that do the work once."""

import argparse
import functools
import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor

from univnet.benchmarks import plain
from univnet.gan.updates import frozen
from univnet.models import Generator
from univnet.models.lvc import location_variable_convolution
from univnet.module import UnivNet
from univnet.runtime import keep_freed_memory
from univnet.vocoder import Vocoder

Contestants = dict[str, Callable[[], object]]
Contest = Callable[[], Contestants]

CHANNELS = {"c16": 16, "c32": 32}
HOPS = (8, 64, 256)  # samples per frame in the three blocks


def has_transformers() -> bool:
    """Whether transformers is installed, which only development needs."""
    return importlib.util.find_spec("transformers") is not None


def infer(options: argparse.Namespace) -> dict[str, Contest]:
    """Audio from a mel-spectrogram, noise included: ``Vocoder``, in chunks if it is long, against transformers."""
    return {f"{seconds:g} s": functools.partial(_infer, options, seconds) for seconds in options.seconds}


def _infer(options: argparse.Namespace, seconds: float) -> Contestants:
    from univnet.audio import LogMelSpectrogram
    from univnet.convert import to_transformers

    torch.manual_seed(0)
    generator, spectrogram = Generator(channels=CHANNELS[options.size]), LogMelSpectrogram()
    frames = round(seconds * spectrogram.sample_rate / spectrogram.hop_length)
    mel = torch.randn(options.batch, spectrogram.n_mels, frames, device=options.device)
    contestants: Contestants = {}
    if has_transformers():
        from transformers import UnivNetConfig, UnivNetModel

        arguments, weights = to_transformers(generator)
        theirs = UnivNetModel(UnivNetConfig(**arguments)).eval()
        theirs.load_state_dict(weights)
        theirs.to(options.device)

        @torch.inference_mode()
        def transformers() -> Tensor:
            with _precision(options):
                return theirs(mel.transpose(1, 2))[0]

        contestants["transformers"] = transformers
    vocoder = Vocoder(generator, spectrogram).to(options.device)

    how: dict[str, Any] = (
        {"seed": None, "chunk_frames": None} if options.device == "meta" else {}
    )  # each frame counts once

    def ours() -> Tensor:
        with _precision(options):
            return vocoder(mel, **how)

    return contestants | {"ours": ours}


def lvc(options: argparse.Namespace) -> dict[str, Contest]:
    """The location-variable convolution: ours against the formula, each with its predictor's memory layout of kernels.

    Forward, and forward with backward; freed memory is kept, as in training.
    """
    keep_freed_memory(options.device == "cpu" and not options.memory_of)
    return {
        f"hop {hop}, {'forward+backward' if backward else 'forward'}": functools.partial(_lvc, options, hop, backward)
        for hop in HOPS
        for backward in (False, True)
    }


def _lvc(options: argparse.Namespace, hop: int, backward: bool) -> Contestants:
    torch.manual_seed(0)
    channels, frames = CHANNELS[options.size], options.segment // 256
    where = {"device": options.device}
    x, bias = (
        torch.randn(options.batch, channels, frames * hop, **where),
        torch.randn(options.batch, 2 * channels, frames, **where),
    )
    theirs = torch.randn(options.batch, channels, 2 * channels, 3, frames, **where)
    our_layout = theirs.permute(0, 4, 2, 1, 3).contiguous().permute(0, 3, 2, 4, 1)
    weight = torch.randn(options.batch, 2 * channels, frames * hop, **where)

    def contestant(convolve: Callable[..., Tensor], kernel: Tensor) -> Callable[[], object]:
        inputs = [tensor.detach().requires_grad_(backward) for tensor in (x, kernel, bias)]

        def work() -> object:
            with _precision(options), torch.set_grad_enabled(backward):
                y = convolve(*inputs, hop)
            return torch.autograd.grad(y, inputs, weight.to(y.dtype)) if backward else y

        return work

    return {
        "formula": contestant(plain.location_variable_convolution, theirs),
        "ours": contestant(location_variable_convolution, our_layout),
    }


def train(options: argparse.Namespace) -> dict[str, Contest]:
    """One update of both players: ours with ``--precision``, against the plain step in float32.

    On the CPU ours keeps freed memory, as the training verbs do; the plain step runs with glibc's default and also so.
    """
    return {f"batch {options.batch} x {options.segment}": functools.partial(_train, options)}


def _train(options: argparse.Namespace) -> Contestants:
    batch = {
        "audio": 0.1 * torch.randn(options.batch, 1, options.segment, device=options.device),
        "mel": torch.randn(options.batch, 100, options.segment // 256, device=options.device),
    }

    @functools.cache  # made at the first run, so that a process for one contestant only makes that one
    def made(_: str) -> tuple[UnivNet, tuple[torch.optim.Optimizer, torch.optim.Optimizer]]:
        torch.manual_seed(0)
        module = UnivNet(generator=Generator(channels=CHANNELS[options.size])).to(options.device)
        generator, discriminator = (configured["optimizer"] for configured in module.configure_optimizers())
        return module, (generator, discriminator)

    def plain_step(keep: bool) -> None:
        keep_freed_memory(keep and not options.memory_of)  # not if memory is measured
        module, optimizers = made("plain")
        noise = torch.randn(options.batch, 64, options.segment // 256, device=options.device)
        plain.step(module, batch, noise, optimizers)

    def ours() -> None:
        keep_freed_memory(not options.memory_of)
        module, optimizers = made("ours")
        our_step(module, batch, optimizers, lambda: _precision(options))

    kept = {"plain, kept": lambda: plain_step(True)} if options.device == "cpu" else {}
    return {"plain": lambda: plain_step(False), **kept, "ours": ours}


def our_step(
    module: UnivNet,
    batch: dict[str, Tensor],
    optimizers: tuple[torch.optim.Optimizer, torch.optim.Optimizer],
    precision: Callable = nullcontext,
    accumulate: int = 1,
) -> None:
    """Update both players like ``GANModule.training_step``, without a trainer, with the batch ``accumulate`` times."""
    for _ in range(accumulate):
        with precision():
            fake = module.generate(batch)
            with frozen(list(module.discriminator.parameters())):
                terms = module.generator_loss(batch, fake)
        assert terms is not None
        terms["loss"].backward()
        with precision():
            losses = module.discriminator_loss(batch, fake.detach())
        assert losses is not None
        losses["loss"].backward()
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad()


@contextmanager
def _precision(options: argparse.Namespace) -> Iterator[None]:
    kind = "cpu" if options.device == "meta" else torch.device(options.device).type
    with torch.autocast(kind, dtype=torch.bfloat16, enabled=options.precision == "bf16"):
        yield
