"""Part (e): the batch-size finder under a real limit of memory, and the range test; neither leaves a trace."""

from collections.abc import Iterator

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from univnet.benchmarks.gpu.child import guarded
from univnet.benchmarks.gpu.correctness import quiet_trainer
from univnet.benchmarks.gpu.scale import Row, Scale
from univnet.gan import LRRangeTest, Tuner
from univnet.models import Generator
from univnet.module import UnivNet

SHARE = 0.1  # of the GPU's memory that this process may use
UPDATES = 100  # with the size that was found


def rows(scale: Scale) -> Iterator[Row]:
    """Yield what was found, whether it trains, and whether all is as before."""
    if scale.cuda:
        torch.cuda.set_per_process_memory_fraction(SHARE, scale.device)
    module = _Fed(scale)
    yield guarded("batch-size finder", batch_size, scale, module)
    yield guarded("training with that size", trains, scale, module)
    yield guarded("learning-rate range test", range_test, scale)


class _Fed(UnivNet):
    """Trains on noise in batches of ``batch_size``."""

    def __init__(self, scale: Scale) -> None:
        torch.manual_seed(0)
        super().__init__(Generator(channels=scale.channels[0]), scale.discriminator())
        self.batch_size = 1
        draw = torch.Generator().manual_seed(0)
        audio = 0.1 * torch.randn(16, 1, scale.segment, generator=draw)
        mel = torch.randn(16, 100, scale.segment // 256, generator=draw)
        self._examples = [{"audio": a, "mel": m} for a, m in zip(audio, mel, strict=True)] * (256 if scale.cuda else 1)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(self._examples, batch_size=self.batch_size)  # type: ignore[arg-type]


class _Traces:
    """What a search must leave as it was."""

    def __init__(self, scale: Scale, module: UnivNet) -> None:
        self.scale, self.module = scale, module
        self.numbers = self._random()
        self.weights = [each.detach().clone() for each in (*module.parameters(), *module.buffers())]
        self.memory = self._memory()

    def _random(self) -> list[Tensor]:
        if not self.scale.cuda:
            return [torch.get_rng_state()]
        return [torch.get_rng_state(), torch.cuda.get_rng_state(self.scale.device)]

    def _memory(self) -> int:
        return torch.cuda.memory_allocated(self.scale.device) if self.scale.cuda else 0

    def left(self) -> Row:
        tensors = [*self.module.parameters(), *self.module.buffers()]
        same = all(torch.equal(a, b) for a, b in zip(tensors, self.weights, strict=True))
        drawn = all(torch.equal(a, b) for a, b in zip(self._random(), self.numbers, strict=True))
        places = {each.device.type for each in tensors}
        right = same and drawn and places == {"cpu"} and self._memory() <= self.memory
        kept = {"weights kept": same, "random numbers kept": drawn, "devices": sorted(places)}
        return {**kept, "bytes left": self._memory() - self.memory, "right": right}


def batch_size(scale: Scale, module: _Fed) -> Row:
    """Find it and set it."""
    options = {} if scale.cuda else {"max_trials": 2, "steps_per_trial": 1}
    traces, tuner = _Traces(scale, module), Tuner(quiet_trainer(scale))
    size = tuner.scale_batch_size(module, **options)  # type: ignore[arg-type]
    assert tuner.batch_size_search is not None
    tried = [(each.size, each.fits) for each in tuner.batch_size_search.trials]
    return {"found": size, "tried": tried, **traces.left()}


def trains(scale: Scale, module: _Fed) -> Row:
    """Train with the size found, under the same limit."""
    trainer: lightning.Trainer = quiet_trainer(scale, max_steps=UPDATES if scale.cuda else 2)
    trainer.fit(module)
    made = trainer.global_step
    return {"batch": module.batch_size, "updates": made, "right": made == trainer.max_steps}


def range_test(scale: Scale) -> Row:
    """Run the generator's; of a new module, which nothing has trained."""
    module = _Fed(scale)
    traces = _Traces(scale, module)
    found = Tuner(quiet_trainer(scale)).lr_find(module, num_training=50 if scale.cuda else 4, update_attr=False)
    assert isinstance(found, LRRangeTest)
    return {"rates tried": len(found.results["lr"]), **traces.left()}
