"""A folder that ``transformers.UnivNetModel`` and its feature extractor load, and back.

Written without transformers; read without it, too.
"""

import json
from os import PathLike
from pathlib import Path
from typing import Any

from univnet.audio import LogMelSpectrogram
from univnet.common.files import write_text
from univnet.convert import generator_config, to_transformers
from univnet.models import BaseGenerator, Generator
from univnet.weights.reading import build_generator, build_mel, check_tensors, read_json, read_pickle, read_safetensors
from univnet.weights.writing import write_safetensors

CONFIG, WEIGHTS, EXTRACTOR, PICKLED = (
    "config.json",
    "model.safetensors",
    "preprocessor_config.json",
    "pytorch_model.bin",
)
# Our argument of LogMelSpectrogram: UnivNetFeatureExtractor's.
_MEL = {
    "sample_rate": "sampling_rate",
    "n_fft": "filter_length",
    "hop_length": "hop_length",
    "win_length": "win_length",
    "n_mels": "num_mel_bins",
    "f_min": "fmin",
    "f_max": "fmax",
    "floor": "compression_clip_val",
}
# What our mel-spectrogram does, in its terms, and its defaults.
_FIXED = {
    "do_normalize": False,
    "center": False,
    "mel_floor": 1e-9,
    "compression_factor": 1.0,
    "win_function": "hann_window",
}


def write_transformers(folder: str | PathLike[str], generator: BaseGenerator, mel: LogMelSpectrogram) -> Path:
    """Write ``config.json``, ``model.safetensors`` and ``preprocessor_config.json``; return the folder.

    Raises:
        ValueError: the generator is not of UnivNet's class, or cannot be expressed there.
    """
    folder = Path(folder)
    if not isinstance(generator, Generator):
        raise ValueError(f"transformers has UnivNet's generator only, not {type(generator).__name__}")
    arguments, state = to_transformers(generator)
    config = {"architectures": ["UnivNetModel"], "model_type": "univnet", "dtype": "float32", **arguments}
    extractor = {theirs: mel.config[ours] for ours, theirs in _MEL.items()}
    extractor |= {
        "feature_extractor_type": "UnivNetFeatureExtractor",
        "model_in_channels": arguments["model_in_channels"],
        **_FIXED,
    }
    write_safetensors(folder / WEIGHTS, state)
    write_text(folder / CONFIG, json.dumps(config, indent=2) + "\n")
    write_text(folder / EXTRACTOR, json.dumps(extractor, indent=2) + "\n")
    return folder


def read_transformers(folder: str | PathLike[str]) -> tuple[BaseGenerator, LogMelSpectrogram]:
    """Return the generator and the mel-spectrogram of a folder of ``UnivNetModel``.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged, they do not fit each other, or the features are made in another way than ours.
    """
    folder = Path(folder)
    config = read_json(folder / CONFIG)
    if (folder / WEIGHTS).is_file() or not (folder / PICKLED).is_file():
        where = folder / WEIGHTS
        state = check_tensors(read_safetensors(where), str(where))
    else:
        where = folder / PICKLED
        state = check_tensors(read_pickle(where), str(where))
    generator = build_generator(generator_config(config), state, str(where))
    features = read_json(folder / EXTRACTOR)
    mel: dict[str, Any] = {ours: features[theirs] for ours, theirs in _MEL.items() if theirs in features}
    differ = [f"{name} is {features[name]}" for name, ours in _FIXED.items() if features.get(name, ours) != ours]
    if differ:
        raise ValueError(f"{folder / EXTRACTOR} makes features in another way than ours: {', '.join(differ)}")
    return generator, build_mel(mel, generator, str(folder / EXTRACTOR))
