"""Each metric against its reference implementation, on identical audio, and on audio that was made worse."""

import importlib.util
import logging
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import scipy.signal
import soundfile as sf
import torch
from torchaudio.functional import resample

from univnet.losses import MultiResolutionSTFTLoss
from univnet.metrics import FAMILIES, METRICS, TABLE, Measure, MissingPackageError, choose
from univnet.metrics.pitch import track

RATE = 16000
FULL = {"pitch", "periodicity", "vuv_f1"}  # take seconds; they differ from the tiny ones in CREPE's size alone
CHEAP = [name for name in METRICS if name not in FULL]
UNMOVED = {("pitch_tiny", "low-pass"), ("distillmos", "shift")}  # the right way is none at all


def skip_if_missing(name: str) -> Measure:
    if METRICS[name].missing:
        pytest.skip(str(METRICS[name].missing))
    return METRICS[name]


def with_noise(x: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=len(x))
    return x + noise * np.sqrt(np.square(x).mean() / np.square(noise).mean() / 100)  # 20 dB


def low_passed(x: np.ndarray) -> np.ndarray:
    return scipy.signal.sosfiltfilt(scipy.signal.butter(8, 2000, fs=RATE, output="sos"), x)


WORSE: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "noise": with_noise,
    "low-pass": low_passed,
    "shift": lambda x: np.concatenate([np.zeros(RATE // 100), x[: -RATE // 100]]),
    "clipping": lambda x: np.clip(x, -0.15 * np.abs(x).max(), 0.15 * np.abs(x).max()),
}


@pytest.fixture(scope="module")
def real(speech_module: np.ndarray) -> np.ndarray:
    return speech_module[16000:46000]


@pytest.fixture(scope="module")
def speech_module(demo: Path) -> np.ndarray:
    return sf.read(sorted(demo.glob("*.flac"))[0], dtype="float32")[0]


@pytest.fixture(scope="module")
def pair(real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Speech that Griffin-Lim made, and the recording."""
    made = librosa.griffinlim(np.abs(librosa.stft(real, n_fft=512)), n_iter=3, random_state=0, length=len(real))
    return made.astype(np.float32), real


class TestAgainstTheReference:
    def test_mstft(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        auraloss = pytest.importorskip("auraloss")
        expected = auraloss.freq.MultiResolutionSTFTLoss()(*(torch.from_numpy(x)[None, None] for x in pair))
        assert METRICS["mstft"](*pair, RATE) == pytest.approx(float(expected), rel=1e-6)

    def test_stft_is_what_training_validates_by(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        terms = MultiResolutionSTFTLoss()(*(torch.from_numpy(x)[None, None] for x in pair))
        assert METRICS["stft_loss"](*pair, RATE) == pytest.approx(float(sum(terms.values())), rel=1e-6)

    def test_mel(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        def log_mel(x: np.ndarray) -> np.ndarray:
            x = np.pad(x, (384, 384), mode="reflect")
            bands = librosa.feature.melspectrogram(
                y=x, sr=RATE, n_fft=1024, hop_length=256, n_mels=100, center=False, power=1.0
            )
            return np.log(np.maximum(bands, 1e-5))

        expected = np.abs(log_mel(pair[0]) - log_mel(pair[1])).mean()
        assert METRICS["mel_l1"](*pair, RATE) == pytest.approx(expected, rel=1e-3)

    @pytest.mark.parametrize("rate", [16000, 24000])
    def test_pesq(self, pair: tuple[np.ndarray, np.ndarray], rate: int) -> None:
        pesq = pytest.importorskip("pesq", reason="pesq needs a C compiler to be installed")
        at_16k = (resample(torch.from_numpy(x), rate, 16000).clamp(-1, 1) for x in pair)
        fake, real = ((x * 32767).round().to(torch.int16).numpy() for x in at_16k)
        assert METRICS["pesq"](*pair, rate) == pesq.pesq(16000, real, fake, "wb")

    def test_stoi(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        pystoi = pytest.importorskip("pystoi")
        fake, real = pair
        assert METRICS["stoi"](fake, real, RATE) == pytest.approx(pystoi.stoi(real, fake, RATE), rel=1e-6)
        assert METRICS["estoi"](fake, real, RATE) == pytest.approx(pystoi.stoi(real, fake, RATE, True), rel=1e-6)

    @pytest.mark.parametrize("rate", [16000, 24000])
    @pytest.mark.filterwarnings("ignore:Chunk")
    def test_mcd(self, pair: tuple[np.ndarray, np.ndarray], rate: int, tmp_path: Path) -> None:
        package = pytest.importorskip("mel_cepstral_distance")
        for name, audio in zip(("fake.wav", "real.wav"), pair, strict=True):
            sf.write(tmp_path / name, audio, rate, subtype="FLOAT")
        logging.getLogger("mel_cepstral_distance.api").setLevel(logging.ERROR)
        expected, _ = package.compare_audio_files(tmp_path / "real.wav", tmp_path / "fake.wav", aligning="pad")
        assert METRICS["mcd"](*pair, rate) == pytest.approx(expected, rel=1e-6)

    def test_distillmos_without_a_network(
        self, pair: tuple[np.ndarray, np.ndarray], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        package = pytest.importorskip("distillmos")

        def refuse(*_: Any) -> None:
            raise AssertionError("a metric reached for the network")

        monkeypatch.setattr(socket.socket, "connect", refuse)
        found = METRICS["distillmos"](*pair, RATE)
        assert not capsys.readouterr().out
        with torch.inference_mode():
            expected = package.ConvTransformerSQAModel().eval()(torch.from_numpy(pair[0])[None])
        assert found == pytest.approx(float(expected), rel=1e-5)

    @pytest.mark.parametrize("rate", [22050])  # so that the hop is no integer at CREPE's rate
    def test_pitch_periodicity_and_voicing(
        self, pair: tuple[np.ndarray, np.ndarray], rate: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Against cargan, whose use of CREPE's full model is bent to the tiny one."""
        cargan, torchcrepe = pytest.importorskip("cargan"), pytest.importorskip("torchcrepe")
        predict = torchcrepe.predict

        def tiny(*args: Any, **kwargs: Any) -> Any:
            return predict(*args, **{**kwargs, "model": "tiny"})

        tracks = []
        for audio in reversed(pair):
            np.random.seed(0)  # noqa: NPY002 - scipy's, of the dither
            with monkeypatch.context() as patch:
                patch.setattr(torchcrepe, "predict", tiny)
                tracks += cargan.preprocess.pitch.from_audio(torch.from_numpy(audio)[None], rate)
        counted = cargan.evaluate.objective.metrics.Pitch()
        counted.update(*tracks)
        expected = counted()
        assert METRICS["pitch_tiny"](*pair, rate) == pytest.approx(expected["pitch"], rel=1e-4)
        assert METRICS["periodicity_tiny"](*pair, rate) == pytest.approx(expected["periodicity"], rel=1e-4)
        assert METRICS["vuv_f1_tiny"](*pair, rate) == pytest.approx(expected["f1"], rel=1e-4)

    def test_the_full_model_is_the_protocols(self, monkeypatch: pytest.MonkeyPatch, real: np.ndarray) -> None:
        torchcrepe = pytest.importorskip("torchcrepe")
        asked, predict = [], torchcrepe.predict

        def tiny(audio: torch.Tensor, rate: int, hop: int, low: float, high: float, model: str, **options: Any) -> Any:
            asked.append(model)
            return predict(audio, rate, hop, low, high, "tiny", **options)

        monkeypatch.setattr(torchcrepe, "predict", tiny)
        METRICS["periodicity"](real[:7000], real[:7000], RATE)
        assert asked == ["full"]  # once: identical audio is not analysed twice

    @pytest.mark.parametrize("name", ["pitch_tiny", "f0"])
    def test_pitch_of_known_tones(self, name: str) -> None:
        skip_if_missing(name)
        seconds = np.arange(RATE) / RATE

        def buzz(hertz: float) -> np.ndarray:
            return sum(0.1 * np.sin(2 * np.pi * hertz * n * seconds) / n for n in range(1, 8)).astype(np.float32)

        expected = 1200 * np.log2(212 / 200)
        assert METRICS[name](buzz(212), buzz(200), RATE) == pytest.approx(expected, abs=12)


class TestTheRightWay:
    @pytest.mark.parametrize("name", CHEAP)
    def test_identical_audio_is_perfect_and_every_damage_is_worse(
        self, name: str, real: np.ndarray, speech_module: np.ndarray
    ) -> None:
        measure = skip_if_missing(name)
        if name == "distillmos":  # was trained on whole sentences
            real = speech_module
        best = measure(real, real, RATE)
        if measure.perfect is not None:
            assert best == pytest.approx(measure.perfect, abs=1e-6)
        for damage, spoil in WORSE.items():
            value = measure(spoil(real).astype(np.float32), real, RATE)
            if (name, damage) in UNMOVED:
                assert value == pytest.approx(best, abs=0.1), damage
            else:
                assert (value < best) if measure.better == "higher" else (value > best), damage

    def test_numpys_random_numbers_are_left_alone(self, real: np.ndarray) -> None:
        pytest.importorskip("torchcrepe")
        np.random.seed(5)  # noqa: NPY002
        track(torch.from_numpy(real[:6000]), RATE, "tiny")
        after = np.random.random()  # noqa: NPY002
        np.random.seed(5)  # noqa: NPY002
        assert after == np.random.random()  # noqa: NPY002


class TestOddAudio:
    @pytest.mark.parametrize("name", CHEAP)
    def test_silence_and_snippets_never_fail(self, name: str, real: np.ndarray) -> None:
        measure = skip_if_missing(name)
        real = real[:12000]
        for fake, other in ((0 * real, real), (real, 0 * real), (real[:100], real[:100]), (real[:3000], real)):
            assert isinstance(measure(fake, other, RATE), float)

    def test_lost_voice_is_the_worst_f1(self, real: np.ndarray) -> None:
        assert skip_if_missing("vuv_f1_tiny")(0 * real, real, RATE) == 0

    def test_the_longer_is_cut_and_any_mono_shape_will_do(self, pair: tuple[np.ndarray, np.ndarray]) -> None:
        fake, real = map(torch.from_numpy, pair)
        expected = METRICS["stft_loss"](fake[:9000], real[:9000], RATE)
        assert METRICS["stft_loss"](fake[None, :9000], real[None, None], RATE) == expected

    @pytest.mark.parametrize(
        ("fake", "says"),
        [
            (np.zeros((2, 4000), np.float32), r"generated audio must have one channel .*got \(2, 4000\)"),
            (np.zeros(0, np.float32), "generated audio is empty"),
            (np.full(4000, np.nan, np.float32), "generated audio holds NaN"),
        ],
    )
    def test_what_is_no_audio_is_refused(self, fake: np.ndarray, says: str) -> None:
        with pytest.raises(ValueError, match=says):
            METRICS["stft_loss"](fake, np.zeros(4000, np.float32), RATE)


class TestTheTable:
    def test_names_families_and_sources(self) -> None:
        assert all(name == each.name and each.title and each.source for name, each in METRICS.items())
        assert set(TABLE) <= set(METRICS)
        folder = Path(__file__).parents[2] / "univnet" / "metrics"
        assert set(FAMILIES) == {path.stem for path in folder.glob("*.py")} - {"__init__", "base", "utterance_mean"}

    def test_an_unknown_name_is_told(self) -> None:
        with pytest.raises(ValueError, match=r"no metric 'mos', 'utmos'; there are mstft,"):
            choose(["mos", "mstft", "utmos"])

    def test_a_package_that_is_missing_is_named_with_the_mend(self, monkeypatch: pytest.MonkeyPatch) -> None:
        find = importlib.util.find_spec
        monkeypatch.setattr("importlib.util.find_spec", lambda name, *a: None if name == "pesq" else find(name, *a))
        assert METRICS["stft_loss"].missing is None
        with pytest.raises(MissingPackageError, match=r"pesq needs the package pesq: pip install 'univnet\[pesq\]'"):
            METRICS["pesq"](np.ones(4000), np.ones(4000), RATE)
