"""Damaged and hostile audio, tables and mels: taken, left out, or refused in one sentence; never a crash or a hang.

``UNIVNET_MUTATIONS`` is the number of inputs, 350 by default.
"""

import resource
import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.mutations import COUNT, mutated

from univnet.audio import LogMelSpectrogram
from univnet.data import AudioFile, SegmentDataset, check_files, read_manifest, scan_folder

MEL = LogMelSpectrogram(16000, n_mels=20)
AUDIO = {
    "wav": {},
    "flac": {},
    "ogg": {},
    "mp3": {},
    "aiff": {},
    "au": {"subtype": "ULAW"},
    "caf": {"subtype": "ALAC_16"},
    "w64": {"subtype": "FLOAT"},
    "gsm.wav": {"subtype": "GSM610", "format": "WAV"},
    "ima.wav": {"subtype": "IMA_ADPCM", "format": "WAV"},
    "opus": {"subtype": "OPUS", "format": "OGG"},
}


def use(files: list[AudioFile], checks: tuple[str, ...] = ("full", "header")) -> bool:
    """Whether they can be trained on, as `AudioDataModule` would."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            for check in checks:
                kept, _ = check_files(files, check, mel=MEL)
                dataset = SegmentDataset(kept, MEL, 4096, epoch="seconds", tries=3)
                for draw in (0, len(dataset) - 1, len(dataset)):
                    context = dataset[draw]["context"]
                    assert context.isfinite().all()
                    assert check == "header" or context.abs().max() <= 1.01
        except (ValueError, OSError) as error:
            text = str(error)
            assert len(text) < 2000
            text.encode()
            return False
    return True


@pytest.fixture(autouse=True)
def _bounded_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400 * 1024  # KiB


@pytest.mark.parametrize("extension", AUDIO)
def test_audio(tmp_path, speech, extension):
    rng = np.random.default_rng(list(AUDIO).index(extension))
    path = tmp_path / f"a.{extension}"
    sf.write(path, speech[:16000], 8000 if "gsm" in extension else 16000, **AUDIO[extension])
    data = path.read_bytes()
    good = sum(use(mutate(path, data, rng)) for _ in range(COUNT // 20))
    assert good < COUNT // 20


def mutate(path: Path, data: bytes, rng: np.random.Generator) -> list[AudioFile]:
    path.write_bytes(mutated(data, rng))
    return scan_folder(path.parent)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "latin-1"])
def test_tables(tmp_path, make_audio, encoding):
    rng = np.random.default_rng(1)
    for name in ("a", "b\u00e9", "c"):
        make_audio(f"{name}.wav", samples=8000)
    rows = "path,speaker,text\n" + "".join(f'{name}.wav,"x ""y""",Zo\u00eb\n' for name in ("a", "b\u00e9", "c"))
    results = set()
    for _ in range(COUNT // 10):
        (tmp_path / "list.csv").write_bytes(mutated(rows.encode(encoding), rng))
        message = ""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                files = read_manifest(tmp_path / "list.csv")
        except ValueError as error:
            message = str(error)
        if message:
            assert "list.csv" in message
            assert len(message.encode()) < 3000
        results.add(not message and use(files))
    assert results == {True, False}


@pytest.mark.parametrize("kind", ["float32", "longdouble", "object", "npz"])
def test_mels(tmp_path, make_audio, kind):
    rng = np.random.default_rng(2)
    make_audio("a.wav", samples=16000)
    make_audio("b.wav", samples=16000)
    good, path = tmp_path / "b.npy", tmp_path / "a.npy"
    np.save(good, np.full((20, 62), -3, np.float32))
    with path.open("wb") as file:
        if kind == "npz":
            np.savez_compressed(file, np.zeros((20, 62)))
        else:
            np.save(file, np.full((20, 62), -3).astype(kind), allow_pickle=True)
    data = path.read_bytes()
    for _ in range(COUNT // 10):
        path.write_bytes(mutated(data, rng))
        use([AudioFile(tmp_path / f"{name}.wav", name, mel=tmp_path / f"{name}.npy") for name in "ab"])
    path.write_bytes(data)
    files = [AudioFile(tmp_path / "b.wav", "b", mel=good), AudioFile(tmp_path / "a.wav", "a", mel=path)]
    assert use(files, ("full",))  # the bad one is left out
    assert use(files[1:]) == (kind in ("float32", "longdouble"))


@pytest.mark.parametrize("shape", ["(20, 17179869184)", "(-1, 62)", "(20, 62, 1)", "(0, 62)", "(" * 4000, "(20, 62j)"])
def test_headers_of_mels_that_promise_too_much(tmp_path, make_audio, shape):
    make_audio("a.wav", samples=16000)
    header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(4086) + b"\n"
    (tmp_path / "a.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 5000)
    assert not use([AudioFile(tmp_path / "a.wav", "a", mel=tmp_path / "a.npy")])
