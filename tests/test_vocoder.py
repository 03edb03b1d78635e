"""The vocoder: the very audio of the generator that was trained."""

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Trainer
from support.small import GENERATOR, MEL

from univnet import Generator, LogMelSpectrogram, UnivNet, Vocoder
from univnet.models.streaming import NOISE_FRAMES
from univnet.vocoder import EDGE_FRAMES, read_checkpoint


@pytest.fixture(scope="module")
def module() -> UnivNet:
    torch.manual_seed(0)
    module = UnivNet(generator=Generator(**GENERATOR), mel=LogMelSpectrogram(**MEL))
    with torch.no_grad():
        for parameter in module.generator.parameters():  # as training would: no weight as it was made
            parameter.add_(0.02 * torch.randn_like(parameter))
    return module


@pytest.fixture(scope="module")
def checkpoint(module: UnivNet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("vocoder") / "trained.ckpt"
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(path, weights_only=True)
    return path


@pytest.fixture
def mel(speech: Any) -> torch.Tensor:
    audio = torch.from_numpy(speech[8000:24000]).reshape(2, 1, -1)
    return LogMelSpectrogram(**MEL)(audio)


def test_it_speaks_as_the_trained_generator_does(module: UnivNet, checkpoint: Path, mel: torch.Tensor) -> None:
    vocoder = Vocoder.from_checkpoint(checkpoint)
    edge = torch.full((2, 20, EDGE_FRAMES), 1e-5).log()
    frames = mel.shape[2] + 2 * EDGE_FRAMES
    assert frames < NOISE_FRAMES
    noise = torch.randn(2, 4, NOISE_FRAMES, generator=torch.Generator().manual_seed(3))[..., :frames]
    with torch.no_grad():
        expected = module.generator(torch.cat([edge, mel, edge], 2), noise)
    expected = expected[..., EDGE_FRAMES * 256 : -EDGE_FRAMES * 256]
    torch.testing.assert_close(vocoder(mel, seed=3), expected, rtol=0, atol=1e-6)
    assert expected.std() > 1e-3


@pytest.mark.parametrize("frames", [1, 2, 7, 31])
def test_the_output_is_frames_times_hop_long(checkpoint: Path, mel: torch.Tensor, frames: int) -> None:
    audio = Vocoder.from_checkpoint(checkpoint)(mel[..., :frames])
    assert audio.shape == (2, 1, frames * 256)
    assert audio.abs().max() <= 1
    assert not audio.requires_grad


def test_the_seed_fixes_the_audio(checkpoint: Path, mel: torch.Tensor) -> None:
    vocoder = Vocoder.from_checkpoint(checkpoint)
    state = torch.get_rng_state()
    assert torch.equal(vocoder(mel), vocoder(mel, seed=0))
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(vocoder(mel), vocoder(mel, seed=1))
    assert not torch.equal(vocoder(mel, seed=None), vocoder(mel, seed=None))


@pytest.mark.parametrize("kind", ["effective", "parameters"])
def test_it_takes_the_averaged_weights_where_there_are_any(checkpoint: Path, kind: str, tmp_path: Path) -> None:
    raw = read_checkpoint(checkpoint)
    trained = Vocoder.from_checkpoint(checkpoint).generator
    network = Generator(**GENERATOR)
    if kind == "effective":
        network.remove_weight_norm()
    average = {name: value + 0.01 for name, value in network.state_dict().items()}
    raw["averaged"] = {"generator": {"swa": {"n_averaged": 3, "updates": 7, "weights": average}}}
    torch.save(raw, tmp_path / "both.ckpt")
    network.load_state_dict(average)
    network.remove_weight_norm()
    for weights, expected in (("auto", network), ("averaged", network), ("raw", trained)):
        ours = Vocoder.from_checkpoint(tmp_path / "both.ckpt", weights).generator.state_dict()
        assert all(torch.equal(ours[name], value) for name, value in expected.state_dict().items())
    with pytest.raises(ValueError, match="holds no averaged weights"):
        Vocoder.from_checkpoint(checkpoint, "averaged")


@pytest.mark.parametrize(("frames", "chunk_frames"), [(200, 64), (129, 40), (61, 60), (45, 64), (300, 128)])
def test_chunks_make_the_audio_of_the_whole(module: UnivNet, checkpoint: Path, frames: int, chunk_frames: int) -> None:
    vocoder, mel = Vocoder.from_checkpoint(checkpoint), torch.randn(2, 20, frames)
    whole = vocoder(mel, chunk_frames=None)
    lengths: list[int] = []
    vocoder.generator.register_forward_pre_hook(lambda _, arguments: lengths.append(arguments[0].shape[2]))
    chunked = vocoder(mel, chunk_frames=chunk_frames)
    torch.testing.assert_close(chunked, whole, rtol=0, atol=1e-5)
    assert max(lengths) <= max(chunk_frames, 2 * vocoder.generator.context_frames + 1)
    # The last frame of silence changes nothing of what is kept: it need not be there.
    assert (len(lengths) > 1) == (frames + 2 * EDGE_FRAMES > chunk_frames + 1)


def test_fresh_noise_is_drawn_once_for_all_chunks(checkpoint: Path) -> None:
    vocoder, mel = Vocoder.from_checkpoint(checkpoint), torch.randn(2, 20, 150)
    made = []
    for chunk_frames in (60, None):
        torch.manual_seed(5)
        made.append(vocoder(mel, seed=None, chunk_frames=chunk_frames))
    torch.testing.assert_close(*made, rtol=0, atol=1e-5)
    assert not torch.equal(made[0], vocoder(mel, seed=None, chunk_frames=60))


def test_chunks_no_longer_than_their_overlap_are_refused(checkpoint: Path) -> None:
    vocoder = Vocoder.from_checkpoint(checkpoint)
    overlap = 2 * vocoder.generator.context_frames
    assert vocoder(torch.zeros(1, 20, 90), chunk_frames=overlap + 1).shape == (1, 1, 90 * 256)
    with pytest.raises(ValueError, match=f"more than the overlap of {overlap} frames, or None: {overlap}"):
        vocoder(torch.zeros(1, 20, 90), chunk_frames=overlap)


def test_new_weights_or_another_precision_are_heard(module: UnivNet, checkpoint: Path, mel: torch.Tensor) -> None:
    vocoder, other = Vocoder.from_checkpoint(checkpoint), Vocoder.from_checkpoint(checkpoint)
    before = vocoder(mel)
    changed = {name: value + 0.01 for name, value in other.generator.state_dict().items()}
    vocoder.generator.load_state_dict(changed)
    other.generator.load_state_dict(changed)
    assert torch.equal(vocoder(mel), other(mel))
    assert not torch.equal(vocoder(mel), before)
    twin = copy.deepcopy(vocoder).double()
    assert twin(mel.double()).dtype == torch.float64
    noise = torch.randn(2, 4, 7)
    with torch.no_grad():
        expected = twin.generator(mel[..., :7].double(), noise.double())
        twin.float()
        torch.testing.assert_close(twin.generator(mel[..., :7], noise), expected.float(), rtol=0, atol=1e-6)


def test_it_knows_its_mel(checkpoint: Path) -> None:
    vocoder = Vocoder.from_checkpoint(checkpoint)
    assert vocoder.sample_rate == 16000
    assert vocoder.mel.config == LogMelSpectrogram(**MEL).config


def test_a_checkpoint_is_read_as_plain_values_only(tmp_path: Path) -> None:
    torch.save({"univnet": {}, "state_dict": {}, "extra": Path("x")}, tmp_path / "code.ckpt")
    with pytest.raises(ValueError, match=r"code\.ckpt holds code besides weights and is not loaded: give a file"):
        read_checkpoint(tmp_path / "code.ckpt")
    with pytest.raises(FileNotFoundError, match="there is no checkpoint"):
        read_checkpoint(tmp_path / "nowhere.ckpt")


def test_a_vocoder_needs_no_lightning() -> None:
    code = "import sys; from univnet import Vocoder; import univnet.cli.synthesize, univnet.cli; "
    code += "print([name for name in sys.modules if name.split('.')[0] in ('lightning', 'matplotlib', 'tensorboard')])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_an_array_is_refused_in_a_sentence(checkpoint: Path) -> None:
    vocoder = Vocoder.from_checkpoint(checkpoint)
    mel = np.zeros((1, vocoder.mel.n_mels, 4), dtype=np.float32)
    told = r"the mel-spectrogram must be a torch\.Tensor, got numpy\.ndarray: take torch\.as_tensor"
    with pytest.raises(TypeError, match=told):
        vocoder(mel)
    with pytest.raises(TypeError, match=told):
        next(vocoder.stream([mel]))
    with pytest.raises(TypeError, match=r"the audio must be a torch\.Tensor, got list"):
        vocoder.mel([0.0] * 5000)
