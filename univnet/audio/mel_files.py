"""Files of log-mels that other programs wrote; only numbers are read from them."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

EXTENSIONS = (".npy", ".pt", ".safetensors")


def open_mel(path: str | Path) -> Tensor:
    """Return the floating-point numbers in a ``.npy``, ``.pt`` or ``.safetensors`` file, as they are shaped there.

    A batch of one is taken out of it. A ``.npy`` file is mapped into memory, not read. A safetensors file holds one
    tensor, or one that is called ``mel``; a ``.pt`` file holds a tensor.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or holds something else; code in it is not run.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"there is no file {path}")
    mel = {".npy": _numpy, ".pt": _torch, ".safetensors": _safetensors}[path.suffix.lower()](path)
    if not mel.is_floating_point():
        raise ValueError(f"{path} does not hold floating-point numbers, as a log-mel-spectrogram does")
    return mel[0] if mel.ndim == 3 and len(mel) == 1 else mel


def frames_of_pipe(pipe: BinaryIO, bands: int, most: int) -> Iterator[Tensor]:
    """Yield the frames that come through ``pipe``, as soon as they come: (bands, frames) each.

    The pipe holds little-endian 32-bit floats, all bands of a frame, then the next frame's.

    Args:
        pipe: such as ``sys.stdin.buffer``.
        bands: numbers per frame.
        most: frames at a time.

    Raises:
        ValueError: it ends within a frame.
    """
    size, left = 4 * bands, b""
    while piece := os.read(pipe.fileno(), most * size - len(left)):
        left += piece
        whole = len(left) // size * size
        if whole:
            values = np.frombuffer(left[:whole], dtype="<f4").reshape(-1, bands).T
            left = left[whole:]
            yield torch.from_numpy(values.astype(np.float32))
    if left:
        raise ValueError(f"the mel from the pipe ends within a frame: {len(left)} bytes of {size}")


def _numpy(path: Path) -> Tensor:
    try:
        mel = np.load(path, mmap_mode="c", allow_pickle=False)
    except Exception as error:  # a damaged header is Python source to numpy, which may fail in any way
        raise ValueError(f"{path} is not a readable .npy file of numbers") from error
    if not isinstance(mel, np.ndarray) or mel.dtype.kind != "f":
        raise ValueError(f"{path} does not hold floating-point numbers, as a log-mel-spectrogram does")
    return torch.from_numpy(mel if mel.dtype.isnative and mel.dtype.itemsize <= 8 else mel.astype(np.float64))


def _torch(path: Path) -> Tensor:
    try:
        mel = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise ValueError(f"{path} holds more than a tensor and is not loaded: save the tensor alone") from error
    except Exception as error:  # torch raises many kinds for a file that is damaged
        raise ValueError(f"{path} is damaged or no file of torch's") from error
    if not isinstance(mel, Tensor):
        raise ValueError(f"{path} holds no tensor: save the mel alone")
    return mel


def _safetensors(path: Path) -> Tensor:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, OSError) as error:
        raise ValueError(f"{path} is damaged or no safetensors file") from error
    if len(tensors) != 1 and "mel" not in tensors:
        raise ValueError(f"{path} holds the tensors {', '.join(tensors) or 'none'}: name one of them mel")
    return tensors.get("mel", next(iter(tensors.values())))
