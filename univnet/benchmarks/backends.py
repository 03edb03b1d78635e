"""A vocoder's exported graphs as contestants of the ``infer`` contest."""

import importlib.util
from collections.abc import Callable, Iterable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from univnet.models.streaming import EDGE_FRAMES, FrameNoise
from univnet.vocoder import Vocoder
from univnet.weights.graph import export_program, write_onnx

# What each needs besides torch.
BACKENDS = {"onnx": ("onnx", "onnxscript", "onnxruntime"), "torch-export": ()}
Speaker = Callable[[Tensor], object]


def missing(name: str) -> list[str]:
    """Return what a backend needs and is not installed."""
    return [each for each in BACKENDS[name] if importlib.util.find_spec(each) is None]


def speakers(names: Iterable[str], vocoder: Vocoder) -> dict[str, Speaker]:
    """Return a function for each backend, which turns a mel into audio on the CPU, the noise drawn as ``Vocoder`` does.

    Each runs on torch's number of threads.
    """
    make = {"onnx": _onnx, "torch-export": _torch_export}
    return {name: _noisy(make[name](vocoder), vocoder) for name in names}


def _noisy(speak: Callable[[Tensor, Tensor], object], vocoder: Vocoder) -> Speaker:
    @torch.inference_mode()
    def spoken(mel: Tensor) -> object:
        noise = FrameNoise(len(mel), vocoder.generator.noise_channels, 0, mel.dtype, mel.device)
        return speak(mel, noise.take(mel.shape[2] + 2 * EDGE_FRAMES))

    return spoken


def _onnx(vocoder: Vocoder) -> Callable[[Tensor, Tensor], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = torch.get_num_threads(), 1
    with TemporaryDirectory() as folder:
        path = write_onnx(Path(folder) / "vocoder.onnx", vocoder)
        session: Any = onnxruntime.InferenceSession(path.read_bytes(), options, providers=["CPUExecutionProvider"])
    return lambda mel, noise: session.run(["audio"], {"mel": mel.numpy(), "noise": noise.numpy()})[0]


def _torch_export(vocoder: Vocoder) -> Callable[[Tensor, Tensor], object]:
    return export_program(vocoder).module()
