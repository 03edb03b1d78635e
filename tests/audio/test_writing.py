"""Audio files in each encoding, whole or piece by piece."""

from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from univnet.audio.writing import audio_writer, write_audio

AUDIO = torch.linspace(-1.2, 1.2, 1001)


@pytest.mark.parametrize(
    ("name", "encoding", "subtype", "step"),
    [
        ("a.wav", "16", "PCM_16", 2**-15),
        ("a.wav", "24", "PCM_24", 2**-23),
        ("a.wav", "float", "FLOAT", 0),
        ("a.flac", "16", "PCM_16", 2**-15),
        ("a.FLAC", "24", "PCM_24", 2**-23),
    ],
)
def test_each_encoding(name: str, encoding: str, subtype: str, step: float, tmp_path: Path) -> None:
    write_audio(tmp_path / name, AUDIO, 16000, encoding)
    info = sf.info(tmp_path / name)
    assert (info.format, info.subtype) == (name[2:].upper(), subtype)
    np.testing.assert_allclose(sf.read(tmp_path / name)[0], AUDIO.clip(-1, 1).numpy(), rtol=0, atol=step + 1e-9)


def test_pieces_make_the_same_file(tmp_path: Path) -> None:
    write_audio(tmp_path / "whole.wav", AUDIO, 16000)
    with audio_writer(tmp_path / "pieces.wav", 16000) as write:
        for piece in AUDIO.split(300):
            write(piece)
    assert (tmp_path / "pieces.wav").read_bytes() == (tmp_path / "whole.wav").read_bytes()


def test_a_failure_leaves_nothing_behind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="holds NaN"), audio_writer(tmp_path / "a.wav", 16000) as write:
        write(torch.cat([AUDIO, AUDIO / 0]))
    with pytest.raises(ValueError, match="FLAC has no floating-point samples: take 24 bits"):
        write_audio(tmp_path / "a.flac", AUDIO, 16000, "float")
    with pytest.raises(ValueError, match="the encoding must be one of 16, 24, float, got '8'"):
        write_audio(tmp_path / "a.wav", AUDIO, 16000, "8")
    assert not list(tmp_path.iterdir())
