"""Published folders: out and in, without the network, and what is refused."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.errors import RepositoryNotFoundError
from safetensors.torch import save_file
from support.hostile import hostile_file, hostile_pickle
from support.small import GENERATOR, MEL
from transformers import UnivNetConfig, UnivNetFeatureExtractor, UnivNetModel

from univnet import Generator, LogMelSpectrogram, Vocoder
from univnet.weights.folder import CARD, CONFIG, WEIGHTS, find_folder
from univnet.weights.sources import read_weights
from univnet.weights.transformers_folder import read_transformers, write_transformers

FITTING = {**GENERATOR, "predictor_channels": 4}  # transformers has one number for these and the noise's channels


def make(**config: Any) -> Vocoder:
    torch.manual_seed(0)
    generator = Generator(**config)
    with torch.no_grad():
        for parameter in generator.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return Vocoder(generator, LogMelSpectrogram(**MEL))


@pytest.fixture(scope="module")
def vocoder() -> Vocoder:
    return make(**GENERATOR)


@pytest.fixture
def folder(vocoder: Vocoder, tmp_path: Path) -> Path:
    about = {"data": "Some speech", "license": "cc-by-4.0", "metrics": {"val/stft": 0.8947}, "updates": 7}
    return vocoder.save_pretrained(tmp_path / "published", about)


def test_what_was_saved_speaks_as_before(vocoder: Vocoder, folder: Path) -> None:
    assert sorted(path.name for path in folder.iterdir()) == sorted((CARD, CONFIG, WEIGHTS))
    loaded, mel = Vocoder.from_pretrained(folder), torch.randn(1, 20, 30)
    assert torch.equal(loaded(mel), vocoder(mel))
    assert loaded.mel.config == vocoder.mel.config
    assert loaded.about["updates"] == 7
    again = loaded.save_pretrained(folder.parent / "again")
    assert (again / CONFIG).read_text() == (folder / CONFIG).read_text()
    assert (again / WEIGHTS).read_bytes() == (folder / WEIGHTS).read_bytes()


def test_half_the_size_is_rounded_and_float32_again_when_read(vocoder: Vocoder, folder: Path, tmp_path: Path) -> None:
    half, mel = vocoder.save_pretrained(tmp_path / "half", half=True), torch.randn(1, 20, 30)
    assert (half / WEIGHTS).stat().st_size < 0.6 * (folder / WEIGHTS).stat().st_size
    loaded = Vocoder.from_pretrained(half)
    for name, weight in vocoder.generator.state_dict().items():
        assert torch.equal(loaded.generator.state_dict()[name], torch.from_numpy(weight.numpy().astype("f2")).float())
    torch.testing.assert_close(loaded(mel), vocoder(mel), rtol=0, atol=1e-2)


def test_what_sixteen_bits_cannot_hold_is_refused(tmp_path: Path) -> None:
    large = make(**GENERATOR)
    large.generator.conv_post.bias.fill_(1e5)
    with pytest.raises(ValueError, match=r"conv_post\.bias has values that float16 cannot hold"):
        large.save_pretrained(tmp_path / "half", half=True)


def test_the_card_tells_what_is_known(folder: Path) -> None:
    card = ModelCard.load(folder / CARD)
    assert card.data.license == "cc-by-4.0"
    assert card.data.library_name == "univnet"
    for told in (
        "Some speech",
        "| val/stft | 0.8947 |",
        "| generator updates | 7 |",
        "16000 Hz",
        "20 bands, 0 to 8000 Hz",
    ):
        assert told in card.text
    assert yaml.safe_load(card.data.to_yaml())["pipeline_tag"] == "audio-to-audio"


def test_a_folder_needs_no_network(folder: Path) -> None:
    code = f"""
import socket, sys
def refuse(*a, **k): raise AssertionError("asked for the network")
socket.socket.connect = socket.getaddrinfo = socket.create_connection = refuse
from univnet import Vocoder
Vocoder.from_pretrained({str(folder)!r})
print([name for name in sys.modules if name.split(".")[0] in ("huggingface_hub", "transformers", "lightning")])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_an_unknown_name_is_told_without_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(FileNotFoundError, match=r"there is no folder someone/vocoder, and the hub could not be rea"):
        Vocoder.from_pretrained("someone/vocoder")
    with pytest.raises(FileNotFoundError, match=r"there is no folder .*nowhere, and it is no OWNER/NAME"):
        Vocoder.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"there is no folder demoo \(did you mean demo\?\), and it is no"):
        Vocoder.from_pretrained("demoo")


def test_a_name_that_the_hub_has_not_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def download(*_: object, **__: object) -> None:
        raise RepositoryNotFoundError("404 Client Error", response=SimpleNamespace(headers={}, request=None))

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    with pytest.raises(FileNotFoundError, match="and the hub gave none of that name: 404 Client Error"):
        Vocoder.from_pretrained("someone/vocoder")


def test_a_hub_name_is_downloaded_once_and_no_more_than_needed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(name: str, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((name, revision, allow_patterns))
        return str(folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    assert Vocoder.from_pretrained("someone/vocoder", revision="v1").sample_rate == 16000
    assert asked == [("someone/vocoder", "v1", [CONFIG, WEIGHTS, "preprocessor_config.json"])]
    assert not read_weights("someone/vocoder").discriminator  # to train from, the discriminator is wanted, too
    assert asked[1][2] == [*asked[0][2], "discriminator.safetensors", "discriminator.json"]


def test_the_demo_is_in_the_repository(tmp_path: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("univnet.weights.folder._DEMO", folder)
    assert find_folder("demo") == folder
    monkeypatch.setattr("univnet.weights.folder._DEMO", tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="run from a checkout"):
        find_folder("demo")


def changed(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / CONFIG).read_text())
    (folder / CONFIG).write_text(json.dumps({**config, **changes}))


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (lambda f: (f / WEIGHTS).unlink(), r"there is no file .*model\.safetensors"),
        (lambda f: (f / WEIGHTS).write_bytes((f / WEIGHTS).read_bytes()[:-5]), r"model\.safetensors is damaged"),
        (lambda f: hostile_pickle(f / WEIGHTS), r"model\.safetensors is damaged or no safetensors file"),
        (lambda f: (f / CONFIG).write_text("{"), r"config\.json is no JSON"),
        (lambda f: (f / CONFIG).write_text("[" * 100000), r"config\.json is no JSON"),
        (lambda f: (f / CONFIG).write_text("[1]"), r"config\.json must hold one JSON object"),
        (lambda f: (f / CONFIG).write_text(" " * (1 << 21)), r"config\.json is larger than"),
        (lambda f: changed(f, model_type="bert"), r"describes a model of type 'bert', not a vocoder"),
        (
            lambda f: changed(f, generator_class="os.system"),
            r"config\.json: the generator's class 'os\.system' is not known here",
        ),
        (lambda f: changed(f, generator=3), r"does not say how its generator is built"),
        (lambda f: changed(f, generator={"depth": 3}), r"describes no generator that can be built"),
        (
            lambda f: changed(f, generator={**GENERATOR, "channels": 10**7}),
            r"do not fit what it describes: .* \d+ more differ",
        ),
        (lambda f: changed(f, mel={**MEL, "n_mels": 80}), r"the mel's n_mels is 80, but the generator takes 20"),
        (lambda f: changed(f, mel={**MEL, "hop_length": 256, "depth": 1}), r"describes no mel-spectrogram"),
        (
            lambda f: save_file({"a": torch.zeros(1)}, f / WEIGHTS),
            r"conv_pre\.bias is missing in the file and \(4,\) here, and 40 more differ",
        ),
    ],
)
def test_what_is_damaged_or_does_not_fit_is_told_in_a_sentence(folder: Path, damage: Any, told: str) -> None:
    damage(folder)
    with pytest.raises((ValueError, FileNotFoundError), match=told) as refused:
        Vocoder.from_pretrained(folder)
    assert len(str(refused.value)) < 500
    assert not (folder / "it-ran").exists()


def test_what_no_card_knows_is_refused(vocoder: Vocoder, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="a model card knows data, license, updates, weights, metrics, not author"):
        vocoder.save_pretrained(tmp_path / "x", {"author": "me"})
    assert not (tmp_path / "x").exists()
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match="is a file: name a folder"):
        vocoder.save_pretrained(tmp_path / "file")


def test_transformers_loads_what_is_exported_and_says_the_same(tmp_path: Path, speech: Any) -> None:
    vocoder = make(**FITTING)
    folder = write_transformers(tmp_path / "t", vocoder.generator, vocoder.mel)
    theirs, extractor = UnivNetModel.from_pretrained(folder).eval(), UnivNetFeatureExtractor.from_pretrained(folder)
    made = extractor(speech[8000:24000], sampling_rate=16000, return_tensors="pt", padding=False)
    mel = vocoder.mel(torch.from_numpy(speech[8000:24000])[None, None])
    torch.testing.assert_close(made.input_features.mT, mel, rtol=0, atol=1e-3)
    noise = torch.randn(1, mel.shape[2], 4)
    with torch.no_grad():
        expected = theirs(mel.mT, noise).waveforms
        torch.testing.assert_close(vocoder.generator(mel, noise.mT)[:, 0], expected, rtol=0, atol=1e-5)
    assert expected.std() > 1e-4
    loaded = Vocoder.from_pretrained(folder)  # and theirs are ours to use
    assert torch.equal(loaded(mel), vocoder(mel))
    assert loaded.mel.config == vocoder.mel.config


@pytest.mark.parametrize("channels", [16, 32])
def test_ours_to_transformers_to_ours_changes_no_bit(channels: int, tmp_path: Path) -> None:
    generator, mel = Generator(channels=channels), LogMelSpectrogram()
    generator.remove_weight_norm()
    back, _ = read_transformers(write_transformers(tmp_path, generator, mel))
    assert back.config == generator.config
    ours, theirs = generator.state_dict(), back.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())


def test_transformers_pickles_are_read_without_code(tmp_path: Path) -> None:
    theirs = UnivNetModel(UnivNetConfig(num_mel_bins=20, model_hidden_channels=4))
    theirs.save_pretrained(tmp_path)
    UnivNetFeatureExtractor(num_mel_bins=20, sampling_rate=16000).save_pretrained(tmp_path)
    (tmp_path / WEIGHTS).unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    assert Vocoder.from_pretrained(tmp_path).mel.n_mels == 20
    ran = hostile_file(tmp_path / "pytorch_model.bin", theirs.state_dict())
    with pytest.raises(ValueError, match=r"pytorch_model\.bin holds code besides weights and is not loaded"):
        Vocoder.from_pretrained(tmp_path)
    assert not ran.exists()


def test_other_features_than_ours_are_refused(tmp_path: Path) -> None:
    vocoder = make(**FITTING)
    folder = write_transformers(tmp_path / "t", vocoder.generator, vocoder.mel)
    features = json.loads((folder / "preprocessor_config.json").read_text())
    (folder / "preprocessor_config.json").write_text(json.dumps(features | {"center": True, "mel_floor": 1e-3}))
    with pytest.raises(ValueError, match=r"in another way than ours: center is True, mel_floor is 0\.001"):
        Vocoder.from_pretrained(folder)
    shutil.copy(folder / CONFIG, tmp_path / CONFIG)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*model\.safetensors"):
        Vocoder.from_pretrained(tmp_path)
