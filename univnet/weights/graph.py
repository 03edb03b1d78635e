"""A vocoder as a graph that runs without this package: ``torch.export``'s programs, and ONNX.

The graph takes ``mel`` (batch, n_mels, frames) and ``noise`` (batch, noise_channels, frames + 20), standard normal,
and returns ``audio`` (batch, 1, frames · hop length) in [−1, 1]; the silence at both ends, which ``Vocoder`` puts
there and cuts away, is in it. Any batch size and any number of frames.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from io import StringIO
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from univnet.common.files import written_whole
from univnet.models.base import cut_audio
from univnet.models.streaming import EDGE_FRAMES

OPSET = 20
_ABOUT = "univnet.json"  # a program's extra file: what ONNX has as metadata


class Deployed(nn.Module):
    """What is exported: the generator between two stretches of silence.

    Args:
        generator: without weight normalization, in evaluation mode.
        silence: the value of a mel frame without sound.
    """

    def __init__(self, generator: Any, silence: float) -> None:
        super().__init__()
        self.generator, self.silence = generator, silence

    def forward(self, mel: Tensor, noise: Tensor) -> Tensor:
        """Return audio (batch, 1, samples) for mel (batch, n_mels, frames) and noise (batch, channels, frames + 20)."""
        padded = F.pad(mel, (EDGE_FRAMES, EDGE_FRAMES), value=self.silence)
        return cut_audio(self.generator, padded, noise, EDGE_FRAMES, EDGE_FRAMES)


def export_program(vocoder: Any) -> torch.export.ExportedProgram:
    """Return ``vocoder`` as an exported program with dynamic batch and length.

    Args:
        vocoder: a ``univnet.Vocoder``, on the CPU in single precision.
    """
    deployed = Deployed(vocoder.generator, vocoder.silence).eval()
    batch, frames = torch.export.Dim("batch", min=1), torch.export.Dim("frames", min=1)
    generator, extra = vocoder.generator, 2 * EDGE_FRAMES
    mel, noise = torch.zeros(2, generator.n_mels, 11), torch.zeros(2, generator.noise_channels, 11 + extra)
    shapes = ({0: batch, 2: frames}, {0: batch, 2: frames + extra})
    with torch.no_grad():
        return torch.export.export(deployed, (mel, noise), dynamic_shapes=shapes)


def write_program(path: str | PathLike[str], vocoder: Any) -> Path:
    """Write an exported program that ``torch.export.load(path).module()`` runs; return the path.

    Raises:
        ValueError: the name does not end in ``.pt2``, which torch asks for when it loads the file.
    """
    if Path(path).suffix != ".pt2":
        raise ValueError(f"{path} must end in .pt2, or torch does not load it")
    program = export_program(vocoder)
    with written_whole(path) as partial, partial.open("wb") as file:
        torch.export.save(program, file, extra_files={_ABOUT: json.dumps(_about(vocoder))})
    return Path(path)


def write_onnx(path: str | PathLike[str], vocoder: Any) -> Path:
    """Write an ONNX model, opset 20, that onnxruntime runs; its metadata tells the sample rate and the mel.

    Raises:
        ValueError: onnx or onnxscript is not installed.
    """
    try:
        import onnx  # noqa: F401 - an extra: said before the work, not after
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise ValueError("an ONNX export needs onnx and onnxscript: pip install 'univnet[onnx]'") from error

    with _quietly():
        exported = torch.onnx.export(
            export_program(vocoder),
            (),
            input_names=["mel", "noise"],
            output_names=["audio"],
            opset_version=OPSET,
            dynamo=True,
            verbose=False,
        )
    assert exported is not None
    exported.model.metadata_props.update({name: json.dumps(value) for name, value in _about(vocoder).items()})
    with written_whole(path) as partial:
        exported.save(str(partial))
    return Path(path)


def _about(vocoder: Any) -> dict[str, Any]:
    return {
        "sample_rate": vocoder.sample_rate,
        "hop_length": vocoder.generator.hop_length,
        "noise_channels": vocoder.generator.noise_channels,
        "noise_frames_more": 2 * EDGE_FRAMES,
        "mel": vocoder.mel.config,
    }


@contextmanager
def _quietly() -> Iterator[None]:
    """Leave out what the exporter says of its own progress."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
