"""Matrix products of float32 numbers in float32, whatever the process computes the others in."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_FULL = ("none", "ieee", "highest")  # "none": nobody has chosen


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Compute matrix products of float32 numbers on ``device`` in float32 in this context.

    ``torch.set_float32_matmul_precision("high")``, which makes training faster on a GPU, has 10 bits of each factor
    count (TF32), and "medium" on a CPU 7 (bfloat16). Mels would err by 1e-3 and more, and so would a vocoder's audio.
    The setting is the process's: other threads have it, too, until the last of these contexts ends. Convolutions are
    not affected.
    """
    setting = _SETTINGS.get(device.type)
    if setting is None:
        yield
        return
    setting.enter()
    try:
        yield
    finally:
        setting.leave()


class _Setting:
    """One backend's precision, which the first context to enter raises and the last to leave puts back."""

    def __init__(self, owner: Any) -> None:
        self._owner, self._lock, self._inside = owner, threading.Lock(), 0
        self._before = "none"

    def enter(self) -> None:
        with self._lock:
            if not self._inside:
                self._before = self._owner.fp32_precision
                if self._before not in _FULL:
                    self._owner.fp32_precision = "ieee"
            self._inside += 1

    def leave(self) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside and self._before not in _FULL:
                self._owner.fp32_precision = self._before


class _OneForAll:
    """The setting of torch before 2.9, which has one for all backends."""

    @property
    def fp32_precision(self) -> str:
        return torch.get_float32_matmul_precision()

    @fp32_precision.setter
    def fp32_precision(self, value: str) -> None:
        torch.set_float32_matmul_precision("highest" if value == "ieee" else value)


def _settings() -> dict[str, _Setting]:
    if not hasattr(torch.backends.mkldnn, "matmul"):
        one = _Setting(_OneForAll())
        return {"cuda": one, "cpu": one}
    return {"cuda": _Setting(torch.backends.cuda.matmul), "cpu": _Setting(torch.backends.mkldnn.matmul)}


_SETTINGS = _settings()
