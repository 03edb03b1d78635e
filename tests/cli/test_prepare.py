"""Preparing corpora: complete, right, idempotent, and the same after any kill."""

import csv
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from torchaudio.functional import resample

from univnet.audio import LogMelSpectrogram
from univnet.cli import main
from univnet.data import AudioDataModule, read_manifest


def prepare(source: Path, output: Path, *options: str) -> None:
    main(["prepare", str(source), "--output", str(output), "--quiet", "--workers", "0", *options])


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def libritts(tmp_path: Path, make_audio) -> Path:
    for i, name in enumerate(
        ("train-clean-100/1/2/1_2_3_4.wav", "dev-clean/5/6/5_6_7_8.wav", "test-clean/9/1/9_1.wav")
    ):
        make_audio(f"LibriTTS/{name}", samples=20000 + i, rate=16000, seed=i)
    (tmp_path / "LibriTTS/train-clean-100/1/2/bad.wav").write_text("not audio")
    return tmp_path / "LibriTTS"


def test_manifest_splits_and_audio(libritts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    prepare(libritts, output)
    rows = table(output / "manifest.tsv")
    assert [(row["path"], row["speaker"], row["split"]) for row in rows] == [
        ("dev-clean/5/6/5_6_7_8.flac", "5", "validation"),
        ("test-clean/9/1/9_1.flac", "9", "test"),
        ("train-clean-100/1/2/1_2_3_4.flac", "1", "train"),
    ]
    for row in rows:
        path = output / row["path"]
        assert hashlib.sha256(path.read_bytes()).hexdigest() == row["sha256"]
        audio, rate = sf.read(path, dtype="float32")
        assert (len(audio), rate) == (int(row["frames"]), 24000)
        source = sf.read(libritts / Path(row["path"]).with_suffix(".wav"), dtype="float32")[0]
        np.testing.assert_allclose(audio, resample(torch.from_numpy(source), 16000, 24000).numpy(), atol=1 / 32768)
        assert float(row["peak"]) == pytest.approx(np.abs(audio).max(), abs=1e-4)
    assert [file.name for file in read_manifest(output / "validation.tsv")] == ["dev-clean/5/6/5_6_7_8.flac"]
    said = capsys.readouterr().out
    assert "dropped: 1 unreadable, for example train-clean-100/1/2/bad.wav" in said
    assert "narrow: 3 have no sound above 10.2 kHz" in said  # 16 kHz sound
    assert (output / "report.png").read_bytes()[:4] == b"\x89PNG"
    data = AudioDataModule(
        manifest=str(output / "train.tsv"), validation_manifest=str(output / "validation.tsv"), mel=LogMelSpectrogram()
    )
    data.setup()
    assert len(data.train_dataset.files) == len(data.validation_dataset) == 1


def test_a_second_run_does_nothing(libritts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = tmp_path / "out"
    prepare(libritts, output)
    before = contents(output), {path: path.stat().st_mtime_ns for path in output.rglob("*")}
    prepare(libritts, output)
    assert before == (contents(output), {path: path.stat().st_mtime_ns for path in output.rglob("*")})
    assert "0 of the sources were worked on now" in capsys.readouterr().out
    (output / "test-clean/9/1/9_1.flac").unlink()
    sf.write(libritts / "dev-clean/5/6/5_6_7_8.wav", np.random.default_rng(0).normal(0, 0.1, 9000), 16000)
    prepare(libritts, output)
    assert "2 of the sources were worked on now" in capsys.readouterr().out
    assert [row["frames"] for row in table(output / "manifest.tsv")] == ["13500", "30003", "30000"]


def test_levels_silence_and_names_that_meet(tmp_path: Path, speech: np.ndarray) -> None:
    for name, gain in (("a.wav", 0.1), ("a.flac", 0.5)):
        (tmp_path / "in").mkdir(exist_ok=True)
        sf.write(tmp_path / "in" / name, np.r_[np.zeros(16000), speech * gain, np.zeros(16000)], 16000)
    for way, level in (("peak", "-6"), ("loudness", "-30")):
        options = ("--trim", "60", "--normalize", way, "--level", level, "--format", "wav", "--sample-rate", "16000")
        prepare(tmp_path / "in", tmp_path / way, *options, "--validation", "1")
        rows = table(tmp_path / way / "manifest.tsv")
        assert [row["path"] for row in rows] == ["a.flac.wav", "a.wav.wav"]
        for row in rows:
            assert float(row["seconds"]) < len(speech) / 16000 + 0.12
            if way == "peak":
                assert float(row["peak"]) == pytest.approx(10 ** (-6 / 20), abs=1e-4)
            else:
                assert float(row["loudness"]) == pytest.approx(-30, abs=0.1)
        assert {row["split"] for row in rows} == {"train", "validation"}


def test_speakers_can_be_kept_apart(tmp_path: Path, make_audio) -> None:
    for speaker in "abcdef":
        for number in range(3):
            make_audio(f"in/wav48/{speaker}/{number}.wav", samples=8000, rate=48000)
    prepare(tmp_path / "in", tmp_path / "out", "--disjoint-speakers", "--validation", "0.3")
    rows = table(tmp_path / "out" / "manifest.tsv")
    groups = {split: {row["speaker"] for row in rows if row["split"] == split} for split in ("train", "validation")}
    assert not groups["train"] & groups["validation"]
    assert sorted(map(len, groups.values())) == [2, 4]


def test_malformed_files_are_each_named_in_the_report(tmp_path: Path, make_audio) -> None:
    good, rng = make_audio("in/good.wav"), np.random.default_rng(0)
    data = good.read_bytes()
    for number in range(40):
        changed = bytearray(data[: rng.integers(1, len(data))])
        changed[rng.integers(min(40, len(changed))) :][:8] = rng.bytes(8)
        (tmp_path / "in" / f"{number:02}.wav").write_bytes(changed)
    os.rename(make_audio("in/x.wav"), os.fsencode(tmp_path) + b"/in/caf\xe9.wav")
    sf.write(tmp_path / "in" / "nan.wav", np.full(9000, np.nan), 16000, subtype="FLOAT")
    (tmp_path / "in" / "tab\tand\nline.wav").write_bytes(data)
    prepare(tmp_path / "in", tmp_path / "out")
    names = [row["path"] for row in table(tmp_path / "out" / "manifest.tsv")]
    assert {"good.flac", "caf_xe9.flac", "tab_and_line.flac"} <= set(names)
    report = (tmp_path / "out" / "report.json").read_text(encoding="utf-8")
    assert "nan.wav" in report
    assert len(names) + sum(f'"{number:02}.wav"' in report for number in range(40)) >= 43


def test_mistakes_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        prepare(tmp_path, tmp_path / "in" / "it", "--validation", "2.5", "--sample-rate", "1", "--level", "3")
    assert ended.value.code == 2
    said = capsys.readouterr().err
    for part in ("--validation must be", "--sample-rate must", "--level must", "--level needs", "must not lie in"):
        assert part in said
    assert not (tmp_path / "in").exists()


def killed_and_resumed(source: Path, folder: Path, kills: int, seed: int) -> None:
    script = "import sys; from univnet.cli import main; main(['prepare', *sys.argv[1:]])"
    command = [sys.executable, "-c", script, str(source), "--output", str(folder), "--quiet", "--workers", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        journal = folder / "prepared.jsonl"
        lines = journal.read_text().count("\n") if journal.exists() else 0
        with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, start_new_session=True) as process:
            wanted = lines + int(rng.integers(0, 3))
            while process.poll() is None and (journal.read_text().count("\n") if journal.exists() else 0) <= wanted:
                time.sleep(0.005)
            time.sleep(rng.random() * 0.05)
            process.send_signal(signal.SIGKILL)
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=100)


def test_killed_after_the_last_recording_the_journal_is_put_in_order(tmp_path: Path, make_audio) -> None:
    for number in range(3):
        make_audio(f"in/{number}.wav", samples=9000, seed=number)
    prepare(tmp_path / "in", tmp_path / "out")
    journal, whole = tmp_path / "out" / "prepared.jsonl", contents(tmp_path / "out")
    journal.write_text("".join(reversed(journal.read_text().splitlines(keepends=True))))
    prepare(tmp_path / "in", tmp_path / "out")
    assert contents(tmp_path / "out") == whole


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_killed_at_any_instant_and_resumed_gives_the_same_bytes(tmp_path: Path, make_audio) -> None:
    for number in range(50):
        make_audio(f"in/{number // 3}/{number}.wav", samples=16000 + number, seed=number)
    prepare(tmp_path / "in", tmp_path / "whole")
    killed_and_resumed(tmp_path / "in", tmp_path / "killed", kills=20, seed=0)
    assert contents(tmp_path / "killed") == contents(tmp_path / "whole")
