"""Handwritten digits, with and without the techniques of ``univnet.gan``: ``python docs/examples/digits.py``."""

import logging
import warnings
from contextlib import nullcontext
from itertools import product
from typing import Any

import torch
from lightning import Trainer
from matplotlib.image import imsave
from scipy.stats import sem, t
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from torch import Tensor, nn
from torch.nn.functional import one_hot, pad, softplus
from torch.utils.data import DataLoader, TensorDataset

from univnet.gan import ExponentialMovingAverage, GANModule, StochasticWeightAveraging, Tuner, Updates

FOUND, ORDER = load_digits(), torch.randperm(1797, generator=torch.Generator().manual_seed(0))
PIXELS, LABELS = torch.from_numpy(FOUND.data).float()[ORDER] / 8 - 1, torch.from_numpy(FOUND.target)[ORDER]
TRAIN, HELD_OUT = (PIXELS[:1200], LABELS[:1200]), (PIXELS[1200:], LABELS[1200:])
READER = SVC(gamma=0.05, C=10).fit(*TRAIN)  # reads 98.8 % of the held-out digits
QUIET = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)


def hidden(inputs: int) -> list[nn.Module]:
    return [nn.Linear(inputs, 128), nn.LeakyReLU(0.2), nn.Linear(128, 128), nn.LeakyReLU(0.2)]


class DigitsGAN(GANModule):
    """The non-saturating GAN with R1 (arXiv 1801.04406); both players are told which digit it is."""

    def __init__(self, generator_lr: float = 2e-4, discriminator_lr: float = 2e-4, **techniques: Updates) -> None:
        super().__init__(**techniques)
        self.save_hyperparameters("generator_lr", "discriminator_lr")  # the range test sets these two …
        self.batch_size = 32  # … and the batch finder sets this
        self.generator = nn.Sequential(*hidden(16 + 10), nn.Linear(128, 64), nn.Tanh())
        self.discriminator = nn.Sequential(*hidden(64 + 10), nn.Linear(128, 1))

    def train_dataloader(self) -> DataLoader:
        return DataLoader(TensorDataset(*TRAIN), self.batch_size, shuffle=True, drop_last=True)

    def generate(self, batch: Any) -> Tensor:
        return self.generator(torch.cat([torch.randn(len(batch[1]), 16), one_hot(batch[1], 10)], 1))

    def judge(self, images: Tensor, labels: Tensor) -> Tensor:
        return self.discriminator(torch.cat([images, one_hot(labels, 10)], 1))

    def generator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        return softplus(-self.judge(fake, batch[1])).mean()

    def discriminator_loss(self, batch: Any, fake: Tensor) -> Tensor:
        real = self.judge(images := batch[0].clone().requires_grad_(), batch[1])
        (slope,) = torch.autograd.grad(real.sum(), images, create_graph=True)
        return softplus(-real).mean() + softplus(self.judge(fake, batch[1])).mean() + 5 * slope.square().sum(1).mean()

    def configure_optimizers(self) -> Any:
        networks = {self.generator: "generator_lr", self.discriminator: "discriminator_lr"}
        return [torch.optim.Adam(each.parameters(), self.hparams[lr], (0.0, 0.99)) for each, lr in networks.items()]


def distance(model: Any, batch: Any) -> Tensor:
    """Return the Fréchet distance between generated and real digits, in the space of their 64 pixels."""
    fake, real = (images.double().T for images in (model.generate(batch), batch[0]))
    roots = torch.linalg.eigvals(fake.cov() @ real.cov()).real.clamp(min=0).sqrt()
    return (fake.mean(1) - real.mean(1)).square().sum() + fake.cov().trace() + real.cov().trace() - 2 * roots.sum()


def scores(model: DigitsGAN) -> tuple[float, float]:
    """Return the distance from held-out digits, and the percentage that is read as the digit that was asked for."""
    torch.manual_seed(0)
    batch = HELD_OUT[0], HELD_OUT[1].repeat(4)
    return distance(model, batch).item(), 100 * READER.score(model.generate(batch).detach(), batch[1])


def tuned() -> tuple[dict[str, float], dict[str, Updates]]:
    """Return the learning rates and the windows that the finders find."""
    tuner = Tuner(Trainer(accelerator="cpu", **QUIET))
    tuner.scale_batch_size(DigitsGAN(), max_val=32, margin=0, target_batch=64)  # as if no more than 32 went into memory
    window = Updates(accumulate=tuner.batch_size_search.accumulate, clip_norm=1.0)
    windows = dict.fromkeys(("generator_updates", "discriminator_updates"), window)
    model, whole = DigitsGAN(**windows), DataLoader(TensorDataset(*TRAIN), len(TRAIN[0]))
    tuner.lr_find(model, None, whole, optimizer="joint", metric=distance, validation_batches=1, min_lr=1e-5, repeats=2)
    print(f"{tuner.batch_size_search}\nlearning rates found: {dict(model.hparams)}")
    return dict(model.hparams), windows


def compare(seeds: int = 3, epochs: int = 40, picture: str = "digits.png") -> dict[tuple[str, str], list[Any]]:
    """Train in three ways with each seed, on equally many digits; print, draw and return how good the digits are."""
    torch.manual_seed(0)
    rates, windows = tuned()
    ways = {"without": {}, "rates found": rates, "rates, windows, clipping": rates | windows}
    found, images = {key: [] for key in product(ways, ("raw", "SWA", "EMA"))}, {}
    for seed, way in product(range(1, seeds + 1), ways):
        torch.manual_seed(seed)
        model = DigitsGAN(**ways[way])
        ema, swa = ExponentialMovingAverage(0.98), StochasticWeightAveraging(model.hparams["generator_lr"])
        Trainer(accelerator="cpu", max_epochs=epochs, callbacks=[ema, swa], **QUIET).fit(model)
        for kind, shown in {"raw": nullcontext(), "SWA": swa.shown(model), "EMA": ema.shown(model)}.items():
            with shown:
                found[way, kind].append(scores(model))
                images[way, kind] = model.generate((None, torch.arange(10).repeat(4))).detach()
    print(f"\n{'training':26}{'weights':9}{'distance':16}read as asked, %")
    for (way, kind), values in found.items():
        cells = zip(torch.tensor(values).mean(0), sem(values) * t.ppf(0.975, seeds - 1), strict=True)
        print(f"{way:26}{kind:9}", *(f"{mean:5.2f} ± {half:<7.2f}" for mean, half in cells))  # 95 % intervals
    rows = torch.cat([images["without", "raw"], -torch.ones(10, 64), images[way, "EMA"]])  # the last seed's digits
    tiles = pad(rows.view(9, 10, 8, 8), [1] * 4, value=-1.0).transpose(1, 2).reshape(90, 100)
    imsave(picture, torch.kron(tiles, torch.ones(5, 5)), cmap="gray_r")
    return found


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.INFO)
    torch.set_num_threads(1)
    compare(picture=__file__.replace(".py", ".png"))
