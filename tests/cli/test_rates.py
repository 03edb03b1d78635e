"""The configurations for other sample rates: what follows from the hop, and that each learns a clip by heart."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
import yaml
from support.runs import events
from torchaudio.functional import resample

from univnet.cli import main
from univnet.cli.training import TrainingCLI

pytestmark = pytest.mark.filterwarnings("ignore:.*LightningCLI's args parameter.*")
CONFIGS = Path(__file__).parents[2] / "configs"
RATES = {"16k": 16000, "22k": 22050, "44k": 44100, "48k": 48000}
FRAMES, UPDATES = 16, 24
MRD, MPD = "univnet.models.MultiResolutionSpectrogramDiscriminator", "univnet.models.MultiPeriodDiscriminator"
SMALL = {
    "trainer": {"accelerator": "cpu", "max_steps": UPDATES, "log_every_n_steps": 1, "val_check_interval": None},
    "model": {
        "generator": {
            "init_args": {"channels": 8, "noise_channels": 4, "predictor_channels": 8, "predictor_blocks": 0}
        },
        "discriminator": {
            "class_path": "univnet.models.Discriminator",
            "init_args": {
                "mrd": {"class_path": MRD, "init_args": {"channels": 2}},
                "mpd": {"class_path": MPD, "init_args": {"periods": [2, 3], "channels": [4, 8]}},
            },
        },
        "discriminator_start": UPDATES // 2,  # also sees to it that the game begins
        "generator_lr": 5e-3,
    },
    "data": {"batch_size": 1, "num_workers": 0, "validation": 0},
}


@pytest.fixture
def built(demo: Path) -> Any:
    """Return a function that builds the parts that a configuration names."""

    def build(name: str) -> TrainingCLI:
        options = ["--data.root", str(demo), "--model.generator.init_args.channels", "4"]
        return TrainingCLI(["--config", str(CONFIGS / f"{name}.yaml"), *options], run=False)

    return build


def test_the_rule(built: Any) -> None:
    base = built("univnet")
    for name, rate in RATES.items():
        parts = built(f"univnet_{name}")
        model, mel = parts.model, parts.model.mel
        times = mel.hop_length // 256
        assert (mel.sample_rate, parts.datamodule.mel) == (rate, mel)
        assert mel.hop_length == model.generator.hop_length == (256 if rate < 24000 else 512)
        assert (mel.n_fft, mel.win_length) == (1024 * times, 1024 * times)
        assert parts.datamodule.segment_length == 16384 * times
        assert mel.f_max in (8000, rate / 2)
        assert bool((mel.filters.sum(1) > 0).all())  # no band without a bin
        scaled = [[times * size for size in each] for each in base.model.stft_loss.resolutions]
        assert [list(each) for each in model.stft_loss.resolutions] == scaled
        assert model.discriminator.mrd.config["resolutions"] == scaled
        assert model.discriminator.mpd.config == base.model.discriminator.mpd.config


@pytest.mark.parametrize("name", RATES)
def test_each_learns_a_clip_by_heart(name: str, speech: np.ndarray, tmp_path: Path) -> None:
    rate = RATES[name]
    length = FRAMES * (256 if rate < 24000 else 512)
    clip = resample(torch.from_numpy(speech[8000:]), 16000, rate)[:length]
    (tmp_path / "speech").mkdir()
    sf.write(tmp_path / "speech" / "0.wav", clip.numpy(), rate)
    for number in range(1, UPDATES):  # one epoch, which would else end after each update
        (tmp_path / "speech" / f"{number}.wav").hardlink_to(tmp_path / "speech" / "0.wav")
    (tmp_path / "small.yaml").write_text(yaml.safe_dump(SMALL))
    files = ["--config", str(CONFIGS / f"univnet_{name}.yaml"), "--config", str(tmp_path / "small.yaml")]
    options = ["--data.root", str(tmp_path / "speech"), "--data.segment_length", str(length)]
    options += ["--trainer.logger.init_args.save_dir", str(tmp_path), "--trainer.enable_checkpointing", "false"]
    main(["fit", *files, *options, "--trainer.enable_progress_bar", "false"])
    [folder] = (tmp_path / f"univnet_{name}").iterdir()
    losses = [event.value for event in events(folder).Scalars("generator/stft")]
    assert len(losses) == UPDATES
    assert math.isfinite(sum(losses))
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:2])
