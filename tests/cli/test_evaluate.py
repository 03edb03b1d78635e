"""``univnet evaluate`` as its users meet it: tables, files, the page, what is skipped, and mistakes."""

import base64
import csv
import importlib.util
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import soundfile as sf
from support import ROOT
from support.small import write_config

from univnet.cli import main
from univnet.metrics import METRICS
from univnet.vocoder import Vocoder

CHEAP = ["stft_loss", "mel_l1", "stoi"]
SECONDS = 1.5


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """A checkpoint of two updates with averaged weights."""
    config = write_config(tmp_path_factory.mktemp("model"), 4, demo)
    average = ["--trainer.callbacks", "univnet.gan.ExponentialMovingAverage", "--trainer.callbacks.decay", "0.5"]
    main(["fit", "--config", str(config), *average, "--trainer.max_steps", "2"])
    return next(config.parent.rglob("last.ckpt"))


@pytest.fixture(scope="module")
def speech_folder(tmp_path_factory: pytest.TempPathFactory, demo: Path) -> Path:
    """Five recordings of two "speakers", and one that is broken."""
    root = tmp_path_factory.mktemp("speech")
    for number, path in enumerate(sorted(demo.glob("*.flac"))[:5]):
        audio, rate = sf.read(path, dtype="float32")
        target = root / ("anna" if number < 3 else "b<i>ob") / f"{number}.wav"
        target.parent.mkdir(exist_ok=True)
        sf.write(target, audio[8000 : 8000 + int(SECONDS * rate)], rate)
    (root / "anna" / "broken.wav").write_bytes(b"RIFF, and nothing more")
    return root


def noisy(root: Path, target: Path, level: float) -> Path:
    rng = np.random.default_rng(0)
    for path in sorted(root.rglob("[0-9].wav")):
        audio, rate = sf.read(path, dtype="float32")
        (target / path.parent.name).mkdir(parents=True, exist_ok=True)
        sf.write(target / path.relative_to(root), audio + rng.normal(0, level, len(audio)), rate)
    return target


def evaluate(*argv: Any) -> None:
    main(["evaluate", *map(str, argv)])


@pytest.fixture(scope="module")
def report(checkpoint: Path, speech_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    """An evaluation of a model, Griffin-Lim and two folders, one of which lacks a file and has a broken one."""
    folder = tmp_path_factory.mktemp("report")
    loud, soft = (noisy(speech_folder, folder / name, level) for name, level in (("loud", 0.03), ("soft", 0.001)))
    (soft / "anna" / "0.wav").unlink()
    (soft / "anna" / "1.wav").write_bytes(b"no audio")
    output = folder / "report"
    done = subprocess.run(
        [
            *(sys.executable, ROOT / "scripts" / "evaluate.py", "--data", speech_folder, "--output", output),
            *("--checkpoint", f"mine={checkpoint}", "--wavs", f"loud & noisy={loud}", f"soft={soft}"),
            *("--metrics", *CHEAP, "--jobs", "2"),
        ],
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    document = json.loads((output / "results.json").read_text())
    html = (output / "index.html").read_text()
    return SimpleNamespace(
        folder=output, out=done.stdout, err=done.stderr, json=document, html=html, loud=loud, soft=soft
    )


class Page(HTMLParser):
    """The page's elements with their attributes, and its text."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def sources(self, tag: str) -> list[str]:
        return [attrs["src"] or "" for each, attrs in self.elements if each == tag]


class TestAReport:
    def test_the_values_are_those_of_the_functions(self, report: SimpleNamespace, speech_folder: Path) -> None:
        rows = {(row["contestant"], row["utterance"]): row["values"] for row in report.json["utterances"]}
        for path in sorted(report.loud.rglob("*.wav")):
            name = path.relative_to(report.loud).as_posix()
            fake, real = (sf.read(root / name, dtype="float32")[0] for root in (report.loud, speech_folder))
            for metric in CHEAP:
                expected = METRICS[metric](fake, real, 16000)
                assert rows["loud & noisy", name][metric] == pytest.approx(expected, rel=1e-5)
        mean = np.mean([rows["loud & noisy", name]["mel_l1"] for who, name in rows if who == "loud & noisy"])
        assert report.json["summary"]["loud & noisy"]["mel_l1"]["mean"] == pytest.approx(mean)

    def test_who_takes_part(self, report: SimpleNamespace) -> None:
        names = ["recording", "mine (averaged)", "mine (raw)", "Griffin-Lim", "loud & noisy", "soft"]
        assert report.json["contestants"] == names
        averaged, raw = (report.json["summary"][name]["stft_loss"]["mean"] for name in names[1:3])
        assert averaged != raw
        for name in names[1:]:
            assert re.search(rf"^{re.escape(name)} +\d", report.out, re.MULTILINE), report.out

    def test_differences_are_paired_and_have_the_right_sign(self, report: SimpleNamespace) -> None:
        pairs = {(each["first"], each["second"]): each["first_minus_second"] for each in report.json["differences"]}
        assert len(pairs) == 10
        loud_soft = pairs["loud & noisy", "soft"]["mel_l1"]
        assert loud_soft["count"] == 3
        assert loud_soft["low"] > 0

    def test_what_is_broken_or_missing_is_named_skipped_and_counted(self, report: SimpleNamespace) -> None:
        skipped = {(each["contestant"], each["utterance"]): each["reason"] for each in report.json["skipped"]}
        assert set(skipped) == {("recording", "anna/broken.wav"), ("soft", "anna/0.wav"), ("soft", "anna/1.wav")}
        assert "has no file 0.*" in skipped["soft", "anna/0.wav"]
        assert "1.wav is not readable audio" in skipped["soft", "anna/1.wav"]
        assert "soft: 2 skipped" in report.out
        assert "recording: 1 skipped: anna/broken.wav: unreadable" in report.out
        measured = {row["utterance"] for row in report.json["utterances"]}
        few = f"intervals of {len(measured)} recordings are too narrow"
        assert few in report.out
        assert few in report.html
        assert report.json["summary"]["soft"]["mel_l1"]["count"] == 3
        assert re.search(r"^soft .*\(3\)", report.out, re.MULTILINE)

    def test_speakers_have_tables_of_their_own(self, report: SimpleNamespace) -> None:
        assert {name: s["loud & noisy"]["mel_l1"]["count"] for name, s in report.json["speakers"].items()} == {
            "anna": 3,
            "b<i>ob": 2,
        }
        assert "speaker anna, 3 utterances" in report.out

    def test_the_csv_files_say_the_same(self, report: SimpleNamespace) -> None:
        with (report.folder / "utterances.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(report.json["utterances"])
        values = {(row["contestant"], row["utterance"]): row["mel_l1"] for row in rows}
        for row in report.json["utterances"]:
            if row["contestant"] != "recording":
                assert float(values[row["contestant"], row["utterance"]]) == row["values"]["mel_l1"]
        with (report.folder / "summary.csv").open(newline="") as file:
            whole = {(r["contestant"], r["metric"]): r for r in csv.DictReader(file) if not r["speaker"]}
        assert float(whole["soft", "mel_l1"]["low"]) == report.json["summary"]["soft"]["mel_l1"]["low"]

    def test_progress_is_shown_and_nothing_else_is_said(self, report: SimpleNamespace) -> None:
        assert "5/5" in report.err
        assert "Warning" not in report.err
        assert sorted(path.name for path in report.folder.iterdir()) == [
            *("index.html", "results.json", "summary.csv", "utterances.csv")
        ]

    def test_one_process_finds_the_same(self, report: SimpleNamespace, speech_folder: Path, tmp_path: Path) -> None:
        evaluate(
            *("--data", speech_folder, "--output", tmp_path, "--wavs", f"loud & noisy={report.loud}"),
            *("--metrics", *CHEAP, "--jobs", "1"),
        )
        alone = json.loads((tmp_path / "results.json").read_text())["summary"]["loud & noisy"]
        for metric in CHEAP:
            assert alone[metric] == pytest.approx(report.json["summary"]["loud & noisy"][metric], rel=1e-5)


class TestThePage:
    def test_it_holds_everything_itself(self, report: SimpleNamespace) -> None:
        page = Page(report.html)
        sounds, pictures = page.sources("audio"), page.sources("img")
        assert len(sounds) == len(pictures) == 5 * 6 - 2
        for source in sounds:
            audio, rate = sf.read(io.BytesIO(base64.b64decode(source.removeprefix("data:audio/flac;base64,"))))
            assert rate == 16000
            assert SECONDS - 0.02 < len(audio) / rate <= SECONDS
        assert all(base64.b64decode(each.partition(",")[2])[8:12] == b"WEBP" for each in pictures)
        links = [attrs[key] for _, attrs in page.elements for key in ("src", "href", "srcset", "data") if key in attrs]
        assert all(str(link).startswith("data:") for link in links)
        assert not re.search(r"url\(|@import|fetch\(|https?:", report.html)
        assert {tag for tag, _ in page.elements} >= {"table", "svg", "audio", "img", "details"}

    def test_the_sound_is_the_contestants(self, report: SimpleNamespace) -> None:
        label = re.escape("loud &amp; noisy, anna/0.wav")
        [sound] = re.findall(rf'aria-label="{label}" src="data:audio/flac;base64,([^"]+)"', report.html)
        audio, _ = sf.read(io.BytesIO(base64.b64decode(sound)))
        np.testing.assert_allclose(audio, sf.read(report.loud / "anna" / "0.wav")[0], atol=1e-4)

    def test_names_cannot_become_markup(self, report: SimpleNamespace) -> None:
        assert "b<i>ob" not in report.html
        assert "b&lt;i&gt;ob" in report.html
        assert "loud &amp; noisy" in report.html

    def test_the_worst_come_first(self, report: SimpleNamespace) -> None:
        shown = re.findall(r"<article><h3>([^ ]+) <small>", report.html)
        values = {
            row["utterance"].replace("<", "&lt;").replace(">", "&gt;"): row["values"]["stft_loss"]
            for row in report.json["utterances"]
            if row["contestant"] == "mine (averaged)"
        }
        assert shown == sorted(values, key=lambda name: -values[name])

    def test_large_evaluations_stay_below_20_mb(
        self, demo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("univnet.metrics.report.page.BUDGET", 600_000)  # else it would take minutes
        monkeypatch.setattr("univnet.metrics.report.page.WORST", 3)
        evaluate(
            *("--data", demo, "--limit", "8", "--wavs", f"same={demo}", "--metrics", "mel_l1"),
            *("--embed", "8", "--jobs", "1", "--output", tmp_path),
        )
        html = (tmp_path / "index.html").read_text()
        sounds = Page(html).sources("audio")
        assert 2 * 3 <= len(sounds) < 2 * 8
        assert all(each.startswith("data:audio/ogg;base64,") for each in sounds)
        assert sf.info(io.BytesIO(base64.b64decode(sounds[0].partition(",")[2]))).duration > 1
        assert 300_000 < len(html) < 700_000
        assert f"{len(sounds) // 2} of 8 utterances" in html

    def test_a_browser_opens_and_plays_it_without_a_complaint(self, report: SimpleNamespace, tmp_path: Path) -> None:
        browser = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
        if browser is None:
            pytest.skip("no Chromium here")
        tell = """<script>addEventListener("load", () => setTimeout(() => {
            const players = [...document.querySelectorAll("audio")];
            document.title = JSON.stringify(players.map((player) => player.duration)) }, 2000))</script>"""
        copy = tmp_path / "page.html"
        copy.write_text(report.html.replace("</body>", tell + "</body>"))
        options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        options += ["--enable-logging=stderr", "--virtual-time-budget=8000", f"--user-data-dir={tmp_path / 'profile'}"]
        done = subprocess.run(
            [browser, *options, "--dump-dom", copy.as_uri()], capture_output=True, text=True, timeout=120, check=True
        )
        found = re.search(r"<title>(\[.*?\])</title>", done.stdout)
        assert found, done.stderr[-2000:]
        durations = json.loads(found[1])
        assert len(durations) == 28
        assert all(SECONDS - 0.05 < each <= SECONDS + 0.05 for each in durations)
        assert "CONSOLE" not in done.stderr


class TestMistakes:
    @pytest.fixture
    def refused(self, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
        def run(*argv: Any) -> str:
            with pytest.raises(SystemExit) as ended:
                evaluate(*argv)
            assert ended.value.code == 2
            [line] = [each for each in capsys.readouterr().err.splitlines() if each.startswith("univnet: error: ")]
            return line

        return run

    def test_all_are_told_at_once_before_anything_is_written(
        self, refused: Callable[..., str], speech_folder: Path, tmp_path: Path
    ) -> None:
        told = refused(
            *("--data", speech_folder, "--output", tmp_path / "new", "--checkpoint", "x.ckpt", "--wavs", "unnamed"),
            *("--metrics", "utmos", "--jobs", "0"),
        )
        for part in ("no checkpoint x.ckpt", "--wavs unnamed must be NAME=DIR", "no metric 'utmos'", "--jobs must be"):
            assert part in told
        assert not (tmp_path / "new").exists()

    def test_a_published_folder_takes_part_under_its_own_name(
        self, checkpoint: Path, speech_folder: Path, tmp_path: Path
    ) -> None:
        Vocoder.from_checkpoint(checkpoint).save_pretrained(tmp_path / "published")
        evaluate(
            *("--data", speech_folder, "--output", tmp_path / "out", "--checkpoint", tmp_path / "published"),
            *("--no-griffin-lim", "--limit", "2", "--metrics", "mel_l1", "--jobs", "1"),
        )
        assert json.loads((tmp_path / "out" / "results.json").read_text())["contestants"] == ["recording", "published"]

    def test_nobody_and_the_same_name_twice(
        self, refused: Callable[..., str], speech_folder: Path, tmp_path: Path
    ) -> None:
        data = ("--data", speech_folder, "--output", tmp_path)
        assert "nobody takes part" in refused(*data)
        told = refused(*data, "--wavs", f"a={speech_folder}", f"a={speech_folder}")
        assert "several contestants called a" in told

    def test_a_metric_without_its_package_is_a_note_and_no_failure(
        self,
        speech_folder: Path,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        refused: Callable[..., str],
    ) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "pesq" else find(name, *a))
        common = ("--data", speech_folder, "--output", tmp_path, "--wavs", f"same={speech_folder}", "--jobs", "1")
        evaluate(*common, "--limit", "2", "--metrics", "mel_l1", "pesq")
        note = "not measured: pesq needs the package pesq: pip install 'univnet[pesq]'"
        assert note in capsys.readouterr().out
        assert "pesq needs the package pesq" in (tmp_path / "index.html").read_text()
        assert "none of the metrics can be computed here: pesq needs" in refused(*common, "--metrics", "pesq")


@pytest.mark.skipif(
    not os.environ.get("UNIVNET_PUBLISHED"),
    reason="UNIVNET_PUBLISHED does not name a folder of speech made by the published weights",
)
def test_the_scale_is_that_of_the_published_weights(tmp_path: Path) -> None:
    """Against figures measured with auraloss and pesq on what weights that nobody here trained made of LibriTTS."""
    folder = Path(os.environ["UNIVNET_PUBLISHED"])
    read = (folder / "README.md").read_text()
    expected = {
        name: tuple(map(str.strip, rest.split("|")))[:4]
        for name, rest in re.findall(r"^\| (\w+) \(\d\) \|(.*)\|$", read, re.MULTILINE)
    }
    assert len(expected) == 4
    names = ("mstft", "pesq", "stft_loss", "mel_l1")
    wavs = [f"{name}={folder / name}" for name in expected]
    evaluate(
        *("--data", folder / "ground_truth", "--wavs", *wavs, "--metrics", *names),
        *("--jobs", "1", "--embed", "0", "--output", tmp_path),
    )
    summary = json.loads((tmp_path / "results.json").read_text())["summary"]
    for name, figures in expected.items():
        for metric, figure in zip(names, figures, strict=True):
            decimals = len(figure.partition(".")[2])
            assert f"{summary[name][metric]['mean']:.{decimals}f}" == figure, (name, metric)
