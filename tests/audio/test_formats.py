"""Mels that other software makes, converted to ours: against librosa, torchaudio and transformers."""

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
import torchaudio
from transformers import SpeechT5FeatureExtractor

from univnet.audio import LogMelSpectrogram, MelFormat
from univnet.audio.formats import FORMATS, doubt

SIZES = {"sample_rate": 16000, "n_fft": 1024, "hop_length": 256, "n_mels": 80}


def ours(speech: np.ndarray, delay: int = 0, **changes: Any) -> tuple[LogMelSpectrogram, torch.Tensor]:
    """Return our mel of ``speech`` that comes ``delay`` samples late."""
    mel = LogMelSpectrogram(**{**SIZES, **changes})
    return mel, mel(torch.from_numpy(np.pad(speech, (delay, 0)))[None, None])[0]


def magnitudes(speech: np.ndarray, **changes: Any) -> np.ndarray:
    return librosa.feature.melspectrogram(
        y=speech, sr=16000, n_fft=1024, hop_length=256, n_mels=80, power=1, pad_mode="reflect", **changes
    )


def assert_same(converted: torch.Tensor, expected: torch.Tensor) -> None:
    inner = slice(4, min(converted.shape[1], expected.shape[1]) - 4)  # the ends are padded by each in its own way
    converted, expected = converted[:, inner], expected[:, inner].to(converted.dtype)
    # Natural logarithms: our √(m² + 1e-9) is larger than m, which is seen beside the floor.
    torch.testing.assert_close(converted, expected, rtol=0, atol=0.05)
    heard = expected > -8
    torch.testing.assert_close(converted[heard], expected[heard], rtol=0, atol=1e-3)
    assert heard.float().mean() > 0.3


@pytest.mark.parametrize(
    ("written", "as_format"),
    [
        (lambda m: np.log(np.maximum(m, 1e-5)), "tacotron2"),
        (lambda m: np.log10(np.maximum(m, 1e-10)), "tacotron2,log=log10,floor=1e-10"),
        (lambda m: np.log2(np.maximum(m, 1e-6)), "tacotron2,log=log2,floor=1e-6"),
        (lambda m: librosa.amplitude_to_db(m, top_db=None), "librosa-db,n_fft=1024,hop_length=256,n_mels=80"),
        (lambda m: np.log(m + 1e-6), "tacotron2,floor=1e-6,floor_by=add"),
        (lambda m: np.log(np.maximum(32768 * m, 1e-2)), "tacotron2,gain=32768,floor=1e-2"),
        (lambda m: (np.log(np.maximum(m, 1e-5)) + 4) / 4, "tacotron2,mean=-4,std=4"),
        (lambda m: np.log10(np.maximum(m, 1e-10)).T, "parallel-wavegan,f_min=0"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_librosas_mels_become_ours(speech: np.ndarray, written: Any, as_format: str) -> None:
    theirs = torch.from_numpy(written(magnitudes(speech.astype(np.float64), fmax=8000)))
    form = MelFormat.named(f"{as_format},sample_rate=16000,f_max=8000")
    mel, expected = ours(speech, form.delay())
    assert form.delay() == 128
    assert_same(form.convert(theirs, mel), expected)


def test_filters_of_equal_height_are_scaled_band_by_band(speech: np.ndarray) -> None:
    made = torchaudio.transforms.MelSpectrogram(
        16000, 1024, hop_length=256, n_mels=80, power=1, norm=None, mel_scale="slaney"
    )(torch.from_numpy(speech))
    form = MelFormat.named("vocos,mel_scale=slaney,sample_rate=16000,n_mels=80")
    mel, expected = ours(speech, form.delay())
    assert_same(form.convert(made.clip(min=1e-7).log(), mel), expected)


def test_transformers_speecht5(speech: np.ndarray) -> None:
    theirs = SpeechT5FeatureExtractor()(audio_target=speech, sampling_rate=16000, return_tensors="pt").input_values[0]
    form = FORMATS["speecht5"]
    mel, expected = ours(speech, form.delay(), f_min=80, f_max=7600)
    assert_same(form.convert(theirs, mel), expected)


def test_statistics_of_a_corpus_are_undone_band_by_band(speech: np.ndarray, tmp_path: Path) -> None:
    logs = np.log10(np.maximum(magnitudes(speech, fmin=80, fmax=7600), 1e-10)).T
    stats = np.stack([logs.mean(0), logs.std(0)])
    np.save(tmp_path / "stats.npy", stats)
    form = MelFormat.named(f"parallel-wavegan,sample_rate=16000,stats={tmp_path / 'stats.npy'}")
    mel, expected = ours(speech, form.delay(), f_min=80, f_max=7600)
    assert_same(form.convert(torch.from_numpy((logs - stats[0]) / stats[1]), mel), expected)


def test_our_own_mel_passes_unchanged(speech: np.ndarray) -> None:
    mel = LogMelSpectrogram()
    values = mel(torch.from_numpy(speech)[None, None])
    for name in ("univnet", "bigvgan"):
        torch.testing.assert_close(FORMATS[name].convert(values, mel), values, rtol=0, atol=1e-6)
        assert FORMATS[name].delay() == 0


def test_what_cannot_be_converted_is_all_named() -> None:
    mel = LogMelSpectrogram()
    with pytest.raises(ValueError, match="of the format hifigan do not fit this vocoder") as refused:
        FORMATS["hifigan"].convert(torch.zeros(80, 5), mel)
    for told in ("sample_rate is 22050, not 24000", "n_mels is 80, not 100", "f_max is 8000, not 12000"):
        assert told in str(refused.value)
    assert FORMATS["vocos"].differences(mel) == ["its mel scale is htk, not slaney"]
    power = FORMATS["librosa-power-db"].differences(mel)
    assert {"hop_length is 512, not 256", "its bands sum powers, not magnitudes"} <= set(power)
    coarse = replace(FORMATS["univnet"], floor=1e-3).differences(mel)
    assert coarse == ["its floor of 0.001 hides what is above this vocoder's 1e-05"]
    with pytest.raises(ValueError, match=re.escape("has the shape (n_mels, frames) with 100 bands, got (5, 100)")):
        FORMATS["univnet"].convert(torch.zeros(5, 100), mel)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("hifi", "there is no mel format 'hifi'; give one of univnet, hifigan"),
        ("hifigan,bands=80", "'bands=80' in the mel format must be KEY=VALUE, KEY one of sample_rate"),
        ("hifigan,n_mels=many", "n_mels=many in a mel format must be a number"),
        (
            "hifigan,log=ln,floor=-1",
            "log must be one of natural, log2, log10, db, got 'ln'; floor must not be negative",
        ),
        ("hifigan,std=0", "std must be positive"),
    ],
)
def test_a_wrong_name_or_setting_is_told(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=re.escape(told)):
        MelFormat.named(text)


def test_statistics_that_do_not_fit_are_told(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"there is no file of statistics .*none\.npy"):
        MelFormat.named(f"parallel-wavegan,stats={tmp_path / 'none.npy'}")
    np.save(tmp_path / "wrong.npy", np.ones((2, 3)))
    with pytest.raises(ValueError, match="mean must be one number or 80, one per band; got 3"):
        MelFormat.named(f"parallel-wavegan,stats={tmp_path / 'wrong.npy'}")
    np.save(tmp_path / "code.npy", np.array([print], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match=r"code\.npy is not a readable \.npy file of numbers"):
        MelFormat.named(f"parallel-wavegan,stats={tmp_path / 'code.npy'}")


@pytest.mark.parametrize(
    ("written", "likely"),
    [
        (lambda m: librosa.power_to_db(m**2), "decibels"),
        (lambda m: librosa.power_to_db(m**2, ref=np.max), "decibels"),
        (lambda m: np.log(np.maximum(m**2, 1e-10)), "logarithms of powers"),
        (lambda m: (librosa.power_to_db(m**2, ref=np.max) + 80) / 80, "normalized to [0, 1]"),
        (lambda m: (librosa.power_to_db(m**2, ref=np.max) + 80) / 40 - 1, "normalized to [-1, 1]"),
        (lambda m: 32768 * m, "magnitudes of which no logarithm was taken"),
        (lambda m: m, "magnitudes of which no logarithm was taken"),
    ],
)
def test_values_that_cannot_be_ours_are_named(speech: np.ndarray, written: Any, likely: str) -> None:
    told = doubt(torch.from_numpy(written(magnitudes(speech))))
    assert told is not None
    assert likely in told


def test_real_and_silent_and_loud_mels_raise_no_doubt(speech: np.ndarray) -> None:
    mel, _ = ours(speech)
    noise = 0.3 * np.random.default_rng(0).standard_normal(8000).astype(np.float32)
    for audio in (speech, 0 * speech, speech / np.abs(speech).max(), noise.clip(-1, 1)):
        assert doubt(mel(torch.from_numpy(audio)[None, None])) is None
    assert doubt(torch.full((80, 3), math.log(1e-5) - 0.5)) is None  # a prediction that misses the floor a little
