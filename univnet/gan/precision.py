"""Mixed precision for two players under Lightning's precision plugins."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from lightning.pytorch.plugins.precision import MixedPrecision, Precision
from torch.amp import GradScaler


@contextmanager
def lent_scaler(plugin: Precision, scaler: GradScaler | None) -> Iterator[None]:
    """Let Lightning's fp16 plugin work with ``scaler`` meanwhile (``None``: without one); others work as they do."""
    if not isinstance(plugin, MixedPrecision) or plugin.scaler is None:
        yield
        return
    plugin.scaler, its_own = scaler, plugin.scaler
    try:
        yield
    finally:
        plugin.scaler = its_own


def no_autocast(device: torch.device) -> AbstractContextManager:
    """Turn autocast off: it is for forward passes, and Lightning has it on throughout ``training_step``."""
    on = torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()
