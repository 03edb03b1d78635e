"""How large the report's measurements are: as users train on a GPU, and small enough for a test on a CPU."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor
from torch.optim import Optimizer

from univnet.models import (
    Discriminator,
    Generator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.module import UnivNet

Row = dict[str, Any]


@dataclass(frozen=True)
class Scale:
    """What is measured, and for how long.

    Args:
        device: ``"cuda"`` (or ``"cuda:1"``) or ``"cpu"``.
        channels: of the generators.
        batch: examples of an update.
        segment: samples of an example.
        updates: timed, of each contestant.
        seconds: of audio to infer.
        batches: examples to infer at once.
        width: channels of the convolutions that are measured alone.
        train_seconds: of the real run.
        tests: which of the tests for a GPU run; a file or folder in ``tests/gpu``.
        compile: also compiled, which takes minutes.
        discriminators: UnivNet's; otherwise two small ones.
    """

    device: str
    channels: tuple[int, ...] = (16, 32)
    batch: int = 32
    segment: int = 16384
    updates: int = 20
    seconds: tuple[float, ...] = (1.0, 10.0, 60.0)
    batches: tuple[int, ...] = (1, 16)
    width: int = 32
    train_seconds: float = 60.0
    tests: str = ""
    compile: bool = True
    discriminators: bool = True

    @classmethod
    def of(cls, device: str) -> Self:
        """Full size on a GPU, reduced on the CPU."""
        whole = cls(device)
        if torch.device(device).type == "cuda":
            return whole
        return replace(
            whole,
            channels=(4,),
            batch=1,
            segment=2048,
            updates=2,
            seconds=(0.2,),
            batches=(1, 2),
            width=4,
            train_seconds=3.0,
            tests="test_mel.py",
            compile=False,
            discriminators=False,
        )

    @property
    def cuda(self) -> bool:
        """Whether the device is a GPU."""
        return torch.device(self.device).type == "cuda"

    @property
    def config(self) -> dict[str, Any]:
        """Plain types."""
        return asdict(self)

    def wait(self) -> None:
        """Wait until the device has done its work."""
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def module(self, channels: int, **options: Any) -> UnivNet:
        """A new UnivNet with such a generator, from seed 0, on the device."""
        torch.manual_seed(0)
        return UnivNet(Generator(channels=channels), self.discriminator(), **options).to(self.device)

    def discriminator(self) -> Discriminator:
        """A new discriminator."""
        if self.discriminators:
            return Discriminator()
        mrd = MultiResolutionSpectrogramDiscriminator([(256, 64, 128)], 2)
        return Discriminator(mrd, MultiPeriodDiscriminator([3], [4, 8]))

    def noise(self, batch: int | None = None) -> dict[str, Tensor]:
        """A batch to train on."""
        size = batch or self.batch
        audio = 0.1 * torch.randn(size, 1, self.segment, device=self.device)
        return {"audio": audio, "mel": torch.randn(size, 100, self.segment // 256, device=self.device)}

    @contextmanager
    def precision(self, name: str) -> Iterator[None]:
        """Compute in it.

        Args:
            name: ``"float32"``, in full; ``"tf32"``, as torch has convolutions on a GPU, on a CPU the same as float32;
                or ``"bf16"``, mixed.
        """
        before = torch.get_float32_matmul_precision(), torch.backends.cudnn.allow_tf32
        if self.cuda:
            torch.set_float32_matmul_precision("highest" if name == "float32" else "high")
            torch.backends.cudnn.allow_tf32 = name != "float32"
        half = torch.autocast(torch.device(self.device).type, dtype=torch.bfloat16) if name == "bf16" else nullcontext()
        try:
            with half:
                yield
        finally:
            if self.cuda:
                torch.set_float32_matmul_precision(before[0])
                torch.backends.cudnn.allow_tf32 = before[1]


def optimizers_of(module: UnivNet) -> tuple[Optimizer, Optimizer]:
    """Return a module's own optimizers, without a trainer."""
    generator, discriminator = (configured["optimizer"] for configured in module.configure_optimizers())
    return generator, discriminator
