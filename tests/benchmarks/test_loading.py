"""The ways of reading read what they should of the recordings that are made; no test asserts a time."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from univnet import LogMelSpectrogram
from univnet.benchmarks.loading import Recordings, WholeFiles, write_recordings
from univnet.cli.benchmark import run
from univnet.cli.messages import UsageError


def test_recordings_and_the_others_ways(tmp_path: Path, demo: Path) -> None:
    write_recordings(tmp_path, Recordings(3, 2.0), demo)
    paths = sorted((tmp_path / "wav").glob("*.wav"))
    wavs = [sf.read(path, dtype="float32")[0] for path in paths]
    assert [len(wav) for wav in wavs] == [48000] * 3
    assert np.abs(wavs[0] - wavs[1]).max() > 0.1
    for path, wav in zip(paths, wavs, strict=True):
        flac = sf.read(tmp_path / "flac" / f"{path.stem}.flac", dtype="float32")[0]
        np.testing.assert_array_equal(wav, flac)
        whole = LogMelSpectrogram()(torch.from_numpy(wav)[None, None])[0]
        item = WholeFiles([path], 8192, with_mel=True)[0]
        assert item["audio"].shape == (1, 8192)
        windows = np.lib.stride_tricks.sliding_window_view(wav, 8192)[::256]
        [first] = np.flatnonzero((windows == item["audio"][0].numpy()).all(1))
        if path == paths[0]:  # the others' speech begins between two frames of what is repeated
            close = (item["mel"] - whole[:, first : first + 32]).abs()[:, 2:-2].median()
            assert close < 0.01
        assert WholeFiles([path], 8192, with_mel=False)[0].keys() == {"audio"}


@pytest.mark.parametrize("workers", ["0", "1"])
def test_all_ways_side_by_side(workers: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], demo: Path) -> None:
    output = tmp_path / "loader.json"
    cases = {"3 x 2 s": 16, "2 x 61 s": 2} if workers == "0" else {"3 x 2 s": 16}
    sizes = ["--recordings", *(case.replace(" ", "").rstrip("s") for case in cases), "--repeats", "1"]
    run(
        [
            "loader",
            *sizes,
            "--segments",
            "16",
            "--batch",
            "4",
            "--root",
            str(demo),
            "--workers",
            workers,
            "--output",
            str(output),
        ]
    )
    report = json.loads(output.read_text())
    rows = report["rows"]
    ways = ["reference's way", "Vocos's way", "ours", "ours, FLAC", "ours, cache in a folder", "ours, cache in memory"]
    assert [(row["case"], row["contestant"]) for row in rows] == [(case, way) for case in cases for way in ways]
    for row in rows:
        assert row["segments_per_s"] == pytest.approx(cases[row["case"]] / row["median_s"])
    assert "per s" in capsys.readouterr().out


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--recordings must be as long as a segment of 0\.68 s; there is no folder"):
        run(["loader", "--recordings", "3x0.5", "--root", str(tmp_path / "none")])
    with pytest.raises(UsageError, match="must be such as 1000x10, got many"):
        run(["loader", "--recordings", "many"])
