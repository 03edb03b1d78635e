"""Part (d): seconds of audio made per second, against ``transformers.UnivNetModel`` where that is installed."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from univnet.audio import LogMelSpectrogram
from univnet.benchmarks.contests import has_transformers
from univnet.benchmarks.gpu.child import guarded
from univnet.benchmarks.gpu.scale import Row, Scale
from univnet.models import Generator
from univnet.vocoder import CHUNK_FRAMES, Vocoder


def rows(scale: Scale) -> Iterator[Row]:
    """Yield a row for each generator, length, batch, precision and way."""
    if not has_transformers():
        yield {"note": "transformers is not installed: its rows are left out"}
    for channels in scale.channels:
        torch.manual_seed(0)
        generator, mel = Generator(channels=channels), LogMelSpectrogram()
        theirs = _transformers(generator).to(scale.device) if has_transformers() else None
        vocoder = Vocoder(generator, mel).to(scale.device)
        for seconds in scale.seconds:
            for batch in scale.batches:
                frames = round(seconds * mel.sample_rate / mel.hop_length)
                given = torch.randn(batch, mel.n_mels, frames, device=scale.device)
                ways: dict[str, Callable[[Tensor], Any]] = {
                    f"chunks of {CHUNK_FRAMES}": partial(vocoder, chunk_frames=CHUNK_FRAMES),
                    "chunks of 4096": partial(vocoder, chunk_frames=4096),
                    "whole": partial(vocoder, chunk_frames=None),
                }
                if theirs is not None:
                    ways["transformers"] = partial(_channels_last, theirs)
                for precision in ("tf32", "bf16"):
                    for name, way in ways.items():
                        case = f"c{channels}, {seconds:g} s, batch {batch}, {precision}, {name}"
                        yield guarded(case, _timed, scale, way, given, precision, seconds)


def _channels_last(theirs: torch.nn.Module, mel: Tensor) -> Any:
    return theirs(mel.transpose(1, 2))


def _transformers(generator: Generator) -> torch.nn.Module:
    from transformers import UnivNetConfig, UnivNetModel

    from univnet.convert import to_transformers

    arguments, weights = to_transformers(generator)
    model = UnivNetModel(UnivNetConfig(**arguments)).eval()
    model.load_state_dict(weights)
    return model


@torch.inference_mode()
def _timed(scale: Scale, way: Callable[[Tensor], Any], mel: Tensor, precision: str, seconds: float) -> Row:
    with scale.precision(precision):
        way(mel)
        scale.wait()
        before = 0
        if scale.cuda:
            torch.cuda.reset_peak_memory_stats(scale.device)
            before = torch.cuda.memory_allocated(scale.device)
        runs, start = 0, time.perf_counter()
        while runs < scale.updates and time.perf_counter() - start < 0.3:
            way(mel)
            scale.wait()
            runs += 1
        took = (time.perf_counter() - start) / runs
    peak = (torch.cuda.max_memory_allocated(scale.device) - before) / 1e6 if scale.cuda else None
    return {"ms": 1000 * took, "times real time": len(mel) * seconds / took, "peak MB": peak}
