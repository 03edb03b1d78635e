"""Networks of other kinds, by the contracts alone: trained, validated, averaged, saved, loaded, and heard."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from support.small import MEL, MPD, MRD, RESOLUTIONS, write_config
from support.upsampler import Upsampler
from torch import Tensor, nn
from torch.utils.data import DataLoader

from univnet import LogMelSpectrogram, UnivNet, Vocoder
from univnet.cli.training import TrainingCLI
from univnet.gan import ExponentialMovingAverage
from univnet.losses import MultiResolutionSTFTLoss
from univnet.models import (
    BaseDiscriminator,
    BaseGenerator,
    Discriminator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
)
from univnet.vocoder import EDGE_FRAMES, read_checkpoint


class OneJudge(BaseDiscriminator):
    """A discriminator with one part, of another kind."""

    def __init__(self) -> None:
        super().__init__()
        self.whole = nn.Sequential(nn.Conv1d(1, 4, 9, 4), nn.LeakyReLU(0.2), nn.Conv1d(4, 1, 9, 4))

    def parts(self) -> dict[str, nn.Module]:
        return {"whole": self.whole}


@pytest.fixture
def batches(speech: np.ndarray) -> list[dict[str, Tensor]]:
    audio = torch.from_numpy(speech[8000 : 8000 + 8 * 2048]).reshape(4, 2, 1, 2048)
    return [{"audio": pieces, "mel": LogMelSpectrogram(**MEL)(pieces)} for pieces in audio]


def upsampling(discriminator: BaseDiscriminator | None = None, **options: Any) -> UnivNet:
    torch.manual_seed(0)
    ours = Discriminator(MultiResolutionSpectrogramDiscriminator(**MRD), MultiPeriodDiscriminator(**MPD))
    judge, mel = discriminator or ours, LogMelSpectrogram(**MEL)
    return UnivNet(Upsampler(), judge, mel, MultiResolutionSTFTLoss(RESOLUTIONS), **options)


def fit(module: UnivNet, batches: list[Any], *callbacks: Callback, **options: Any) -> Trainer:
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = Trainer(accelerator="cpu", callbacks=list(callbacks), **quiet, **({"max_epochs": 3} | options))
    trainer.fit(module, DataLoader(batches, batch_size=None), DataLoader(batches, batch_size=None))
    return trainer


def test_another_generator_goes_all_the_way(batches: list[Any], tmp_path: Path) -> None:
    path, module = tmp_path / "other.ckpt", upsampling(generator_lr=1e-3)
    before = {name: weight.clone() for name, weight in module.state_dict().items()}
    trainer = fit(module, batches, ExponentialMovingAverage(0.9))
    trainer.save_checkpoint(path)
    assert trainer.callback_metrics.keys() >= {"val/stft", "val/mel"}
    moved = [name for name, weight in module.state_dict().items() if not torch.equal(weight, before[name])]
    assert moved == [name for name in before if name.startswith(("generator.", "discriminator."))]

    mel = torch.cat([batch["mel"] for batch in batches], 2)  # 32 frames
    edge = torch.full((2, 20, EDGE_FRAMES), 1e-5).log()
    padded, noise = torch.cat([edge, mel, edge], 2), torch.empty(2, 0, mel.shape[2] + 2 * EDGE_FRAMES)
    averaged = Upsampler()
    averaged.remove_weight_norm()
    averaged.load_state_dict(read_checkpoint(path)["averaged"]["generator"]["ema"]["weights"])
    made = []
    for weights, network in (("averaged", averaged), ("raw", module.generator)):
        vocoder = Vocoder.from_checkpoint(path, weights)
        assert type(vocoder.generator) is Upsampler
        with torch.no_grad():
            expected = network(padded, noise)[..., EDGE_FRAMES * 256 : -EDGE_FRAMES * 256]
        torch.testing.assert_close(vocoder(mel), expected, rtol=0, atol=1e-6)
        torch.testing.assert_close(vocoder(mel, chunk_frames=12), expected, rtol=0, atol=1e-5)
        assert torch.equal(vocoder(mel, seed=None), vocoder(mel, seed=7))
        made.append(expected)
    assert not torch.allclose(*made, atol=1e-4)


def test_another_discriminator_trains(batches: list[Any]) -> None:
    module = upsampling(OneJudge())
    before = {name: weight.clone() for name, weight in module.discriminator.named_parameters()}
    fit(module, batches)
    assert all(not torch.equal(weight, before[name]) for name, weight in module.discriminator.named_parameters())
    assert {"loss", "whole", "real_score", "fake_score"} <= module.updates["discriminator"].report.keys()
    scores = module.discriminator(batches[0]["audio"])
    assert torch.equal(scores["whole"], module.discriminator.whole(batches[0]["audio"]))


def test_yaml_names_another_generator(demo: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text("model: {generator: {class_path: support.upsampler.Upsampler, init_args: {channels: 4}}}")
    args = ["--config", str(write_config(tmp_path, 3, demo)), "--config", str(other)]
    model = TrainingCLI(args=args, run=False).model
    assert isinstance(model.generator, Upsampler)
    assert model.generator.config["channels"] == 4


def test_a_checkpoint_of_another_class_is_refused(batches: list[Any], tmp_path: Path) -> None:
    class Quieter(Upsampler):
        pass

    path, module = tmp_path / "other.ckpt", upsampling()
    fit(module, batches, max_epochs=1).save_checkpoint(path)
    module.generator = Quieter()
    with pytest.raises(
        ValueError, match=r"class is 'Upsampler' in the checkpoint and '.*test_base\..*Quieter' here; use"
    ):
        module.on_load_checkpoint(read_checkpoint(path))


def test_what_a_generator_must_say_is_asked_for_before_training() -> None:
    class Short(Upsampler):
        def __init__(self) -> None:
            super().__init__()
            del self.context_frames, self.hop_length

    with pytest.raises(ValueError, match="Short must set hop_length and context_frames: see"):
        UnivNet(Short(), mel=LogMelSpectrogram(**MEL))
    with pytest.raises(TypeError, match=r"abstract.*config"):
        type("Wordless", (BaseGenerator,), {"forward": Upsampler.forward})()
