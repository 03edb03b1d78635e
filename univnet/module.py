"""The training module of the UnivNet vocoder: both losses, validation, optimizers, and what checkpoints hold."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from math import inf
from os import PathLike
from typing import Any, ClassVar, Literal, Self

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.plugins.precision import HalfPrecision
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor
from torch.nn import functional as F
from torch.optim import Optimizer

from univnet.audio import LogMelSpectrogram
from univnet.common.mistakes import Mistakes
from univnet.common.precision import full_precision
from univnet.gan import Collapse, GANModule, SharedForward, Updates
from univnet.gan.endurance.checkpoint_io import WholeCheckpointIO
from univnet.gan.play.turns import Order
from univnet.losses import (
    AdversarialLoss,
    FeatureMatching,
    LeastSquares,
    MultiResolutionSTFTLoss,
    MultiScaleMelLoss,
    mean_over_parts,
)
from univnet.models import (
    BaseDiscriminator,
    BaseGenerator,
    Discriminator,
    Generator,
    MultiPeriodDiscriminator,
    MultiResolutionSpectrogramDiscriminator,
    generator_class,
    generator_name,
)
from univnet.models.checks import misfits, unfit_parts
from univnet.runtime import compile_networks

# Constructor arguments that are plain numbers, besides the learning rates.
_NUMBERS = ("stft_weight", "discriminator_start", "discriminator_warmup", "feature_weight", "mel_weight")
Batch = Mapping[str, Any]

FUSED = ("cpu", "cuda", "mps", "xpu")  # devices on which torch's AdamW has a kernel that updates all weights at once


@dataclass(frozen=True)
class Schedule:
    """A learning-rate schedule of one player.

    Args:
        scheduler: makes a torch scheduler from the player's optimizer; in YAML, a ``class_path`` with ``init_args``.
        interval: step it after each update of this player (``"step"``) or after each ``"epoch"``.
        frequency: step it only after every ``frequency`` intervals.
        monitor: the metric that ``ReduceLROnPlateau`` watches, such as ``val/stft``.
    """

    scheduler: LRSchedulerCallable
    interval: Literal["step", "epoch"] = "step"
    frequency: int = 1
    monitor: str | None = None


class UnivNet(GANModule):
    """Train a vocoder's generator against a discriminator: by default UnivNet's (arXiv 2106.07889, §2).

    Batches hold ``"audio"`` (batch, 1, samples) in [−1, 1] and ``"mel"`` (batch, n_mels, frames), where samples are
    frames × hop length.

    Args:
        generator: the vocoder, default: UnivNet-c32.
        discriminator: the adversary, default: the paper's MRD and MPD.
        mel: computes the mel-spectrogram, default: ``LogMelSpectrogram()``; the data module uses the same one.
        stft_loss: the reconstruction loss.
        stft_weight: weight of ``stft_loss`` in the generator's loss (the paper's λ).
        discriminator_start: generator updates before the adversarial game begins; until then the generator trains on
            the reconstruction loss alone and the discriminator is not trained (the paper: 200,000).
        generator_lr: the generator's learning rate; it overrides the optimizer's own.
        discriminator_lr: the same for the discriminator.
        generator_optimizer: the generator's optimizer, default: AdamW; a function of its parameters. ``None`` is AdamW
            with betas (0.5, 0.9), fused where the device can. In YAML, a ``class_path`` with ``init_args``.
        discriminator_optimizer: the same for the discriminator.
        generator_schedule: the generator's learning-rate schedule; ``None`` keeps the rate constant.
        discriminator_schedule: the same for the discriminator.
        generator_updates: the generator's accumulation, clipping and guard.
        discriminator_updates: the same for the discriminator.
        compile: compile the networks' blocks with ``torch.compile``. It takes minutes in the first updates, and again
            for every new batch size and segment length. Validation is not compiled; checkpoints are the same.
        adversarial_loss: both players' losses over a sub-discriminator: ``univnet.losses.LeastSquares`` (the default)
            or ``univnet.losses.Hinge``. In YAML, a ``class_path``.
        feature_weight: weight of feature matching in the generator's adversarial loss; 0 (UnivNet) switches it off;
            HiFi-GAN, BigVGAN and DAC use 2.
        mel_loss: a second reconstruction loss, of mel-spectrograms, used if ``mel_weight`` is not 0; default: DAC's at
            the sample rate of ``mel``.
        mel_weight: weight of ``mel_loss`` in the generator's loss; 0 (UnivNet) switches it off; DAC uses 15.
        discriminator_warmup: discriminator updates that come first when the game begins; then the generator trains on.
            New discriminators beside a trained generator first learn to judge its audio. ``global_step``, which counts
            generator updates, stays meanwhile; ``warmup/…`` is logged at the discriminator's updates.
        order: the order of play (``GANModule``): ``"simultaneous"``, ``"generator_first"``, ``"discriminator_first"``.
            UnivNet's own code lets the generator move first and gives the discriminator the audio of before; that is
            the same as ``"simultaneous"``.
        fresh_fakes: generate again for the second player.

    Raises:
        ValueError: if a learning rate is not positive and finite, if another number is negative, if the generator, the
            mel-spectrogram and the losses do not fit each other, or if the discriminator defines ``forward`` without
            ``parts``; it names everything that is wrong.
    """

    watched: ClassVar[Mapping[str, str]] = {**GANModule.watched, "generator": "generator/stft"}

    def __init__(
        self,
        generator: Generator
        | BaseGenerator
        | None = None,  # the first class is the one that YAML may give without class_path
        discriminator: Discriminator | BaseDiscriminator | None = None,
        mel: LogMelSpectrogram | None = None,
        stft_loss: MultiResolutionSTFTLoss | None = None,
        stft_weight: float = 2.5,
        discriminator_start: int = 0,
        generator_lr: float = 1e-4,
        discriminator_lr: float = 1e-4,
        generator_optimizer: OptimizerCallable | None = None,
        discriminator_optimizer: OptimizerCallable | None = None,
        generator_schedule: Schedule | None = None,
        discriminator_schedule: Schedule | None = None,
        generator_updates: Updates = Updates(),
        discriminator_updates: Updates = Updates(),
        compile: bool = False,
        adversarial_loss: AdversarialLoss | None = None,
        feature_weight: float = 0.0,
        mel_loss: MultiScaleMelLoss | None = None,
        mel_weight: float = 0.0,
        discriminator_warmup: int = 0,
        order: Order = "simultaneous",
        fresh_fakes: bool = False,
    ) -> None:
        super().__init__(generator_updates, discriminator_updates, order, fresh_fakes)
        self.save_hyperparameters("generator_lr", "discriminator_lr")  # plain numbers, which a tuner may set
        self.generator: BaseGenerator = generator or Generator()
        self.discriminator: BaseDiscriminator = discriminator or Discriminator()
        self.mel = mel or LogMelSpectrogram()
        self.stft_loss = stft_loss or MultiResolutionSTFTLoss()
        self.stft_weight, self.discriminator_start = stft_weight, discriminator_start
        self.discriminator_warmup = discriminator_warmup
        self._make_optimizer = {"generator": generator_optimizer, "discriminator": discriminator_optimizer}
        self._schedule = {"generator": generator_schedule, "discriminator": discriminator_schedule}
        self.adversarial_loss, self.feature_weight = adversarial_loss or LeastSquares(), feature_weight
        if feature_weight:
            self.adversarial_loss = FeatureMatching(self.adversarial_loss, feature_weight)
        self.mel_loss = (mel_loss or MultiScaleMelLoss(self.mel.sample_rate)) if mel_weight else None
        self.mel_weight = mel_weight
        loss = self.adversarial_loss
        self._shared_forward = SharedForward(loss.generator, loss.discriminator, loss.sees_real, loss.judge)
        self._to_compile = compile
        self._warming = False  # in this micro-batch
        self._check_fit()

    def _check_fit(self) -> None:
        mistakes = Mistakes(self)
        for name in ("generator_lr", "discriminator_lr"):
            rate = self.hparams[name]
            mistakes.unless(0 < rate < inf, f"{name} must be a positive finite number, got {rate}")
        for name in _NUMBERS:
            value = getattr(self, name)
            mistakes.unless(value >= 0, f"{name} must not be negative, got {value}")
        mistakes.add(misfits(self.generator, self.mel.n_mels, self.mel.hop_length))
        mistakes.add(unfit_parts(self.discriminator, self.adversarial_loss.sees_features))
        if self.mel_loss:
            ours, theirs = self.mel.sample_rate, self.mel_loss.sample_rate
            mistakes.unless(
                ours == theirs, f"mel_loss.sample_rate is {theirs} but mel.sample_rate is {ours}: make them equal"
            )
        mistakes.raise_all()

    def refuse_unfit(self, trainer: Trainer, options: str = "") -> None:
        """Refuse what cannot train two players, and weights in half precision."""
        super().refuse_unfit(trainer, options)
        if isinstance(trainer.precision_plugin, HalfPrecision):
            half = trainer.precision_plugin.precision
            raise MisconfigurationException(
                f"precision {half}: the losses' Fourier transforms do not exist in half precision, and small updates "
                f"are lost in it; use {half.replace('true', 'mixed')}, which keeps weights and losses in float32"
            )

    def setup(self, stage: str) -> None:
        """Prepare the networks' blocks for compiling before training, if ``compile`` is set."""
        super().setup(stage)
        if self._to_compile and stage == "fit":
            blocks = (*self.generator.blocks_to_compile(), *self.discriminator.parts().values())
            compile_networks(blocks, self.trainer.strategy.root_device)

    @property
    def sample_rate(self) -> int:
        """The sample rate of the generated audio, in Hz."""
        return self.mel.sample_rate

    @property
    def collapse_rule(self) -> Collapse | None:
        """When a learning-rate range test takes the discriminator for collapsed: a matter of the adversarial loss."""
        rule = self.adversarial_loss.collapse
        return None if rule is None else Collapse(**rule)  # type: ignore[arg-type]

    @property
    def adversarial(self) -> bool:
        """Whether the adversarial game has begun."""
        return self.global_step >= self.discriminator_start

    @property
    def warming_up(self) -> bool:
        """Whether the discriminator learns alone, on the audio of a generator that rests."""
        return self.adversarial and self.updates["discriminator"].steps < self.discriminator_warmup

    def on_batch_size_trial(self) -> None:
        """Let both players train at once."""
        self.discriminator_start = self.discriminator_warmup = 0

    def generate(self, batch: Batch) -> Tensor:
        """Return audio (batch, 1, samples) for the batch's mel-spectrograms and fresh noise."""
        mel = batch["mel"]
        self._warming = self.warming_up
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._warming):
            return self.generator(mel, self.generator.draw_noise(mel))

    def generator_loss(self, batch: Batch, fake: Tensor) -> dict[str, Tensor] | None:
        """Return the adversarial loss plus the weighted reconstruction losses, and all terms.

        ``None`` while the discriminator warms up.
        """
        if self._warming:
            return None
        terms = self._reconstruction(fake, batch["audio"])
        loss = self.stft_weight * terms["stft"]
        if self.mel_loss:
            loss = loss + self.mel_weight * terms["multi_scale_mel"]
        if self.adversarial:
            judged = self._shared_forward.generator_terms(
                self.discriminator.parts(), fake, batch["audio"], share=self.one_forward_serves_both
            )
            over_parts = mean_over_parts(judged)
            adversarial = over_parts.pop("loss")
            terms, loss = {**terms, "adversarial": adversarial, **over_parts}, loss + adversarial
        return {"loss": loss, **terms}

    def discriminator_loss(self, batch: Batch, fake: Tensor) -> dict[str, Tensor] | None:
        """Return the adversarial loss over all sub-discriminators, and of each; ``None`` before the game begins."""
        if not self.adversarial:
            return None
        judged = self._shared_forward.discriminator_terms(self.discriminator.parts(), fake, batch["audio"])
        return mean_over_parts(judged)

    def validation_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Log the reconstruction losses ("M-STFT") and the mel distance; return the audio for callbacks to show.

        The noise is the same at every validation, and training's random numbers are not used. There is no mixed
        precision, as in ``Vocoder``: the metrics would mostly measure how bf16 rounds the audio.
        """
        noise = torch.Generator(self.device).manual_seed(batch_idx)
        # A compiled graph would be for one length only.
        eagerly = torch.compiler.set_stance("force_eager") if self._to_compile else nullcontext()
        with eagerly, torch.autocast(self.device.type, enabled=False), full_precision(self.device):
            mel, audio = batch["mel"], batch["audio"]
            fake = self.generator(mel, self.generator.draw_noise(mel, noise)).float()
        terms = self._reconstruction(fake, audio)
        terms["mel"] = F.l1_loss(self.mel(fake), self.mel(audio))
        named = {f"val/{name}": value for name, value in terms.items()}
        self.log_dict(named, batch_size=len(audio), sync_dist=True)
        return {"audio": fake}

    def _reconstruction(self, fake: Tensor, audio: Tensor) -> dict[str, Tensor]:
        """Return the STFT loss as ``"stft"``, its terms, and any mel loss as ``"multi_scale_mel"``."""
        terms = self.stft_loss(fake, audio)
        terms = {"stft": torch.stack(list(terms.values())).sum(), **terms}
        return terms | {"multi_scale_mel": self.mel_loss(fake, audio)} if self.mel_loss else terms

    def configure_optimizers(self) -> Any:
        """Return each player's optimizer, with its learning rate and schedule."""
        return [self._configure(name, getattr(self, name).parameters()) for name in self.updates]

    def _configure(self, player: str, parameters: Iterable[Tensor]) -> dict[str, Any]:
        make_optimizer: Callable = self._make_optimizer[player] or _default_optimizer
        optimizer: Optimizer = make_optimizer(parameters)
        for group in optimizer.param_groups:
            group["lr"] = self.hparams[f"{player}_lr"]
        schedule = self._schedule[player]
        if schedule is None:
            return {"optimizer": optimizer}
        how: dict[str, Any] = {"interval": schedule.interval, "frequency": schedule.frequency}
        if schedule.monitor is not None:
            how["monitor"] = schedule.monitor
        make_scheduler: Callable = schedule.scheduler
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": make_scheduler(optimizer), **how}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Add what rebuilds the vocoder, in plain types: the generator's class, its arguments and the mel's."""
        super().on_save_checkpoint(checkpoint)
        kind = generator_name(type(self.generator))
        checkpoint["univnet"] = {"generator": self.generator.config, "mel": self.mel.config, "generator_class": kind}
        checkpoint["univnet"]["numbers"] = {name: getattr(self, name) for name in _NUMBERS}
        if type(self.discriminator) is Discriminator:
            parts = {"mrd": self.discriminator.mrd.config, "mpd": self.discriminator.mpd.config}
            checkpoint["univnet"]["discriminator"] = parts

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | PathLike[str],
        map_location: Any = "cpu",
        strict: bool = True,
        **arguments: Any,
    ) -> Self:
        """Build the module that a training checkpoint is of, with its raw weights; only plain types are read from it.

        Args:
            checkpoint_path: the file.
            map_location: the device, as in ``torch.load``.
            strict: the weights must be those of the module, all of them.
            **arguments: constructor arguments in place of the file's, or which it does not have: optimizers, schedules,
                updates, losses, and a discriminator of another class.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is damaged, or is not of this module.
        """
        checkpoint = WholeCheckpointIO().load_checkpoint(checkpoint_path, map_location, weights_only=True)
        if not isinstance(checkpoint, dict) or not {"univnet", "state_dict"} <= checkpoint.keys():
            raise ValueError(f"{checkpoint_path} is not a checkpoint that univnet's training wrote")
        saved = checkpoint["univnet"]
        theirs: dict[str, Any] = {**checkpoint.get("hyper_parameters", {}), **saved.get("numbers", {})}
        theirs["generator"] = generator_class(saved.get("generator_class", "Generator"))(**saved["generator"])
        theirs["mel"] = LogMelSpectrogram(**saved["mel"])
        if parts := saved.get("discriminator"):
            mrd, mpd = MultiResolutionSpectrogramDiscriminator(**parts["mrd"]), MultiPeriodDiscriminator(**parts["mpd"])
            theirs["discriminator"] = Discriminator(mrd, mpd)
        module = cls(**{**theirs, **arguments})
        if strict:
            module.on_load_checkpoint(checkpoint)
        module.load_state_dict(checkpoint["state_dict"], strict=strict)
        return module.to(map_location) if isinstance(map_location, str | torch.device) else module

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuse a checkpoint of another model, and say what differs."""
        super().on_load_checkpoint(checkpoint)
        theirs, parts = checkpoint.get("univnet", {}), {"generator": self.generator.config, "mel": self.mel.config}
        kind = generator_name(type(self.generator))
        their_kind = theirs.get("generator_class", kind)  # older checkpoints do not have it
        differ = [f"the generator's class is {their_kind!r} in the checkpoint and {kind!r} here"] * (kind != their_kind)
        differ += [
            f"{part}.{key} is {theirs[part].get(key)!r} in the checkpoint and {value!r} here"
            for part, ours in parts.items()
            if part in theirs
            for key, value in ours.items()
            if theirs[part].get(key) != value
        ]
        if not differ:
            shapes, here = (
                {k: tuple(v.shape) for k, v in d.items()} for d in (checkpoint["state_dict"], self.state_dict())
            )
            names = sorted(name for name in shapes.keys() | here.keys() if shapes.get(name) != here.get(name))
            differ = [
                f"{name} is {shapes.get(name, 'missing')} in the checkpoint and {here.get(name, 'missing')} here"
                for name in names[:1]
            ] + [f"and {len(names) - 1} more weights differ"] * (len(names) > 1)
        if differ:
            raise ValueError(
                f"the checkpoint is of another model: {'; '.join(differ)}; use its own configuration with it"
            )


def _default_optimizer(parameters: Iterable[Tensor]) -> Optimizer:
    parameters = list(parameters)
    fused = all(p.device.type in FUSED for p in parameters)
    return torch.optim.AdamW(parameters, betas=(0.5, 0.9), fused=fused or None)
