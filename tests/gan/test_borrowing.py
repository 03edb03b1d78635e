"""The wheel, installed without its dependencies beside torch and Lightning, trains a GAN with every technique."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys

class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {names!r} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Hiding, sys.meta_path)
import lightning as L, torch, univnet
from torch.utils.data import TensorDataset
from univnet.data.loader import EpochSampler, ResumableDataLoader
from univnet.gan import *
assert univnet.__file__.startswith({target!r}), univnet.__file__

class Toy(GANModule):
    def __init__(self):
        super().__init__(Updates(2, clip_norm=1.0), Updates(every=2, clip_value=0.5), order="discriminator_first")
        self.save_hyperparameters({{"generator_lr": 1e-3, "discriminator_lr": 1e-3}})
        self.batch_size = 2
        self.generator, self.discriminator = torch.nn.Linear(3, 2), torch.nn.Linear(2, 1)
    def generate(self, batch):
        return self.generator(batch[0])
    def generator_loss(self, batch, fake):
        return (1 - self.discriminator(fake)).square().mean() + (fake - batch[0][:, :2]).square().mean()
    def discriminator_loss(self, batch, fake):
        return (1 - self.discriminator(batch[0][:, :2])).square().mean() + self.discriminator(fake).square().mean()
    def configure_optimizers(self):
        pairs = (self.generator, self.hparams.generator_lr), (self.discriminator, self.hparams.discriminator_lr)
        optimizers = [torch.optim.Adam(net.parameters(), rate) for net, rate in pairs]
        cyclical = CyclicalLR(optimizers[0], 1e-4, 1e-3, window="hann", step_size_up=3)
        return [{{"optimizer": optimizers[0], "lr_scheduler": {{"scheduler": cyclical, "interval": "step"}}}},
                {{"optimizer": optimizers[1]}}]
    def train_dataloader(self):
        data = TensorDataset(torch.randn(48, 3))
        return ResumableDataLoader(data, self.batch_size, EpochSampler(data))

def trainer(*callbacks):
    return L.Trainer(max_epochs=4, accelerator="cpu", logger=False, enable_progress_bar=False,
                     enable_model_summary=False, callbacks=list(callbacks), default_root_dir="runs")

gan = Toy()
found = Tuner(trainer()).lr_find(gan, num_training=10)
assert len(found.results["lr"]) == 10
try:
    found.plot()
except ImportError as error:
    assert "matplotlib" in str(error)
assert Tuner(trainer()).scale_batch_size(gan, max_trials=2, steps_per_trial=1) >= 2
swa = StochasticWeightAveraging(1e-3, swa_epoch_start=1, annealing_epochs=1, player="generator")
ema = ExponentialMovingAverage(0.9, player="discriminator")
fit = trainer(swa, ema)
fit.fit(gan)
fit.save_checkpoint("x.ckpt")
assert averaged_weights(torch.load("x.ckpt", weights_only=True), "generator")
trainer(swa, ema).fit(gan, ckpt_path="x.ckpt", weights_only=True)
print("trained", gan.global_step)
"""
ABSENT = (
    "soundfile librosa torchaudio tensorboard soxr safetensors huggingface_hub matplotlib jsonargparse scipy sklearn"
)


@pytest.mark.timeout(200)
def test_the_wheel_alone_trains_a_gan(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    build = ["wheel", str(ROOT), "--no-deps", "--no-build-isolation", "-w", str(tmp_path / "wheel")]
    subprocess.run([*pip, *build], check=True, timeout=120)
    [wheel] = (tmp_path / "wheel").glob("*.whl")
    target = tmp_path / "site"
    subprocess.run([*pip, "install", "--no-deps", "--target", str(target), str(wheel)], check=True, timeout=60)
    program = PROGRAM.format(names=set(ABSENT.split()), target=str(target))
    environment = {**os.environ, "PYTHONPATH": str(target)}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "trained" in done.stdout
