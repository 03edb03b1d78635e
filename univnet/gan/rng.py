"""Save and restore the state of every random number generator of this process."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn


def rng_state() -> dict[str, Any]:
    """Return the states of Python's, NumPy's, torch's CPU and this device's CUDA generator, in plain types."""
    name, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002 - the global state is what is saved
    return {
        "python": random.getstate(),
        "numpy": [str(name), torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def begin_on(device: torch.device) -> None:
    """Make ``device`` the present one, with its random numbers, before the strategy does, so that they can be kept."""
    if device.type == "cuda":
        torch.cuda.set_device(device)
        torch.cuda.init()  # seeds its generator as ``torch.manual_seed`` has said


def set_rng_state(state: dict[str, Any]) -> None:
    """Restore what ``rng_state`` returned."""
    random.setstate(state["python"])
    name, keys, *rest = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), *rest))  # noqa: NPY002
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def set_apart(rank: int) -> None:
    """Give a rank other than the first random numbers of its own, which follow from the seed and the rank.

    The first keeps those that it has, and with it a run of one process.
    """
    if rank:
        draw = torch.Generator().manual_seed((torch.initial_seed() + rank) % 2**63)
        seed = int(torch.randint(2**62, (), generator=draw))
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)


@contextmanager
def preserved(*modules: nn.Module) -> Iterator[None]:
    """Restore, after this context, the random numbers and every layer's training or evaluation mode in ``modules``."""
    modes = [(layer, layer.training) for module in modules for layer in module.modules()]
    numbers = rng_state()
    try:
        yield
    finally:
        for layer, training in modes:
            layer.training = training
        set_rng_state(numbers)
