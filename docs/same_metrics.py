"""Whether what makes training fast changes what it learns: ``python docs/same_metrics.py [SEED …]``.

The demo's model and speech, 200 updates with the discriminator from the first on. "plain" computes each update with
`univnet.benchmarks.plain` (three discriminator forwards, torch's default layouts) and AdamW that is not fused, "ours"
as training does by default, "bf16" with ``--trainer.precision bf16-mixed``. Validation is the same for all.
"""

import sys
from types import MethodType

import torch
from torch import Tensor

from univnet import UnivNet
from univnet.benchmarks import plain
from univnet.cli.messages import plain_messages
from univnet.cli.training import TrainingCLI
from univnet.losses import Judged, LeastSquares, mean_over_parts
from univnet.module import Batch

OPTIONS = ["--config", "configs/demo.yaml", "--model.discriminator_start", "0", "--trainer.max_steps", "200"]
OPTIONS += ["--trainer.logger", "false", "--trainer.enable_checkpointing", "false"]
OPTIONS += ["--trainer.enable_progress_bar", "false", "--trainer.val_check_interval", "200"]
ADAMW = "{class_path: torch.optim.AdamW, init_args: {betas: [0.5, 0.9], fused: false}}"
ARMS = {
    "plain": ["--model.generator_optimizer", ADAMW, "--model.discriminator_optimizer", ADAMW],
    "ours": [],
    "bf16": ["--trainer.precision", "bf16-mixed"],
}


def generate(self: UnivNet, batch: Batch) -> Tensor:
    """Draw the noise that the generator would, and synthesize plainly."""
    mel = batch["mel"]
    return plain.generate(self.generator, mel, torch.randn(len(mel), self.generator.noise_channels, mel.shape[2]))


def generator_loss(self: UnivNet, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
    """Judge the fakes for the generator alone."""
    terms = self._reconstruction(fake, batch["audio"])
    scores = plain.judge(self.discriminator, fake)
    adversarial = mean_over_parts({k: LeastSquares().generator(Judged(score)) for k, score in scores.items()})
    return {"loss": self.stft_weight * terms["stft"] + adversarial["loss"], **terms}


def discriminator_loss(self: UnivNet, batch: Batch, fake: Tensor) -> dict[str, Tensor]:
    """Judge both for the discriminator."""
    fakes, reals = (plain.judge(self.discriminator, audio) for audio in (fake, batch["audio"]))
    judged = {k: LeastSquares().discriminator(Judged(reals[k]), Judged(fakes[k])) for k in reals}
    return {"loss": mean_over_parts(judged)["loss"]}


def metrics(arm: str, seed: int) -> dict[str, float]:
    """Train, and return what validation says at the end."""
    cli = TrainingCLI(args=[*OPTIONS, *ARMS[arm], "--seed_everything", str(seed)], run=False)
    if arm == "plain":
        for method in (generate, generator_loss, discriminator_loss):
            setattr(cli.model, method.__name__, MethodType(method, cli.model))
    cli.trainer.fit(cli.model, cli.datamodule)
    return {name: float(cli.trainer.callback_metrics[f"val/{name}"]) for name in ("stft", "mel")}


def main() -> None:
    """Print a row a run."""
    for seed in map(int, sys.argv[1:] or ("1", "2", "3")):
        for arm in ARMS:
            with plain_messages():
                found = metrics(arm, seed)
            print(f"| {arm} | {seed} | {found['stft']:.4f} | {found['mel']:.4f} |", flush=True)


if __name__ == "__main__":
    main()
