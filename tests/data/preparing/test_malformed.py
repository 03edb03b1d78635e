"""Damaged and hostile recordings neither crash nor hang ``prepare``, and each is named in its report."""

import contextlib
import csv
import io
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
from support.hostile import Touch
from support.mutations import mutated

from univnet.cli import main

FORMATS = {
    "a.wav": {"subtype": "PCM_16"},
    "b.flac": {},
    "c.ogg": {},
    "d.mp3": {},
    "e.aiff": {},
    "f.au": {"subtype": "ULAW"},
    "g.caf": {"subtype": "ALAC_16"},
    "h.w64": {"subtype": "FLOAT"},
    "i.wav": {"subtype": "GSM610"},
    "j.wav": {"subtype": "IMA_ADPCM"},
    "k.opus": {"subtype": "OPUS", "format": "OGG"},
    "l.au": {"subtype": "G721_32"},
}
Make = Callable[[Path], object]


def certain(speech: np.ndarray) -> Iterator[tuple[str, Make]]:
    """What nobody can train on, by name: it must be dropped."""
    good = (speech[:16000] * 32767).astype(np.int16)

    def patched(change: Callable[[bytearray], object]) -> Make:
        def make(path: Path) -> None:
            sf.write(path, good, 16000)
            data = bytearray(path.read_bytes())
            change(data)
            path.write_bytes(data)

        return make

    def endless(data: bytearray) -> None:  # 2³⁶ − 1 samples in FLAC's STREAMINFO
        data[21] |= 0x0F
        data[22:26] = b"\xff" * 4

    yield "empty.wav", lambda path: path.write_bytes(b"")
    yield "text.flac", lambda path: path.write_text("fLaC and no more")
    yield "pickle.wav", lambda path: path.write_bytes(pickle.dumps(Touch(path.with_name("it-ran"))))
    yield "arrays.wav", lambda path: np.savez(path.open("wb"), np.array([{}], dtype=object))
    yield "endless.flac", patched(endless)
    yield "half.flac", patched(lambda data: data.__delitem__(slice(len(data) // 2, None)))
    yield "half.wav", patched(lambda data: data.__delitem__(slice(len(data) // 2, None)))
    yield "huge.wav", patched(lambda data: data.__setitem__(slice(40, 44), b"\xff\xff\xff\x3f"))
    yield "rate.wav", patched(lambda data: data.__setitem__(slice(24, 28), b"\xff\xff\xff\x7f"))
    yield "no-rate.wav", patched(lambda data: data.__setitem__(slice(24, 28), bytes(4)))
    for name, value in (("nan", np.nan), ("infinite", np.inf), ("explodes", 1e18), ("silent", 0.0), ("constant", 0.3)):
        samples = np.where(np.arange(16000) % 999 == 7, value, speech[:16000]) if value else np.zeros(16000)
        samples = np.full(16000, value) if name == "constant" else samples
        yield f"{name}.wav", lambda path, samples=samples: sf.write(path, samples, 16000, subtype="FLOAT")
    opposite = np.stack([speech[:16000], -speech[:16000]], 1)
    yield "opposite.wav", lambda path: sf.write(path, opposite, 16000)
    yield "clipped.wav", lambda path: sf.write(path, np.sign(speech[:16000]), 16000)


def malformed(folder: Path, count: int, speech: np.ndarray) -> tuple[set[str], set[str]]:
    """Write ``count`` recordings; return the names of all and of those that must be dropped."""
    folder.mkdir()
    bad = set()
    for name, make in certain(speech):
        make(folder / name)
        bad.add(name)
    rng, names = np.random.default_rng(0), set(bad)
    for name, options in FORMATS.items():
        sf.write(folder / name, speech[:12000], 8000 if options.get("subtype") == "GSM610" else 16000, **options)
        names.add(name)
    good = {name: (folder / name).read_bytes() for name in FORMATS}
    while len(names) < count:
        name = list(FORMATS)[len(names) % len(FORMATS)]
        damaged = f"{len(names)}-{name}"
        (folder / damaged).write_bytes(mutated(good[name], rng))
        names.add(damaged)
    (folder / "folder.wav").mkdir()
    (folder / "loop.wav").symlink_to("loop.wav")
    (folder / "round").symlink_to(".")
    return names, bad


def prepared(folder: Path, workers: int) -> str:
    """What ``prepare`` says: in this process without workers, else in one of its own, with limits."""
    argv = ["in", "--output", "out", "--quiet", "--workers", str(workers)]
    if not workers:
        with contextlib.chdir(folder), contextlib.redirect_stdout(io.StringIO()) as said:
            main(["prepare", *argv])
        return said.getvalue()
    limits = "import resource; resource.setrlimit(resource.RLIMIT_DATA, (6 << 30, 6 << 30)); "  # bytes, per process
    script = limits + "import sys; from univnet.cli import main; main(['prepare', *sys.argv[1:]])"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", script, *argv]
    ran = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stderr
    return ran.stdout


@pytest.mark.parametrize(
    ("count", "workers"), [(60, 0), pytest.param(1000, 2, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)
def test_each_is_prepared_or_named(count: int, workers: int, speech: np.ndarray, tmp_path: Path) -> None:
    names, bad = malformed(tmp_path / "in", count, speech)
    assert len(names) == count
    for again in (False, True):
        said = prepared(tmp_path, workers)
        assert f"{0 if again else count} of the sources were worked on now" in said
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    dropped = [name for of_one_reason in report["dropped"].values() for name in of_one_reason]
    with (tmp_path / "out" / "manifest.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert len(rows) + len(dropped) == len(names)
    assert bad <= set(dropped) <= names
    assert not set(FORMATS) & set(dropped)
    assert not (tmp_path / "in" / "it-ran").exists()
    assert all(len(reason) < 200 for reason in report["dropped"])
    for row in rows:
        audio, rate = sf.read(tmp_path / "out" / row["path"])
        assert (len(audio), rate) == (int(row["frames"]), 24000)
        assert np.abs(audio).max() <= 1
