"""Real and generated validation speech as audio and pictures, for the same few utterances each time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from torch import Tensor

from univnet.audio import LogMelSpectrogram

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class ValidationSamples(Callback):
    """Show the first validation utterances: real audio, generated audio, and their mels with the difference.

    TensorBoard gets audio and pictures; loggers with ``log_audio`` and ``log_image`` (Weights & Biases) get the same;
    others get nothing.

    The module must have a ``LogMelSpectrogram`` as ``mel``; its batches and the result of its ``validation_step`` must
    hold ``"audio"``.

    Args:
        count: how many utterances to show.

    Raises:
        MisconfigurationException: before training, if the module has no such ``mel``.
    """

    def __init__(self, count: int = 4) -> None:
        self.count = count
        self._real_shown: set[str] = set()

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a module without a mel-spectrogram."""
        if not isinstance(getattr(pl_module, "mel", None), LogMelSpectrogram):
            raise MisconfigurationException(
                f"ValidationSamples draws mels with {type(pl_module).__name__}.mel: set it to a LogMelSpectrogram"
            )

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Tensor | Mapping[str, Any] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Show this utterance, if it is one of the first."""
        if trainer.sanity_checking or batch_idx >= self.count or not trainer.is_global_zero:
            return
        from univnet.audio.picture import mel_picture

        assert isinstance(outputs, Mapping)
        mel = pl_module.mel
        assert isinstance(mel, LogMelSpectrogram)
        real, fake = batch["audio"][:1].float(), outputs["audio"][:1]
        real_mel, fake_mel = (mel(audio)[0].cpu().numpy() for audio in (real, fake))
        name, step, rate = f"sample_{batch_idx}", trainer.global_step, mel.sample_rate
        sounds = {"generated": fake}
        if name not in self._real_shown:  # it is the same each time
            sounds["real"] = real
            self._real_shown.add(name)
        for logger in trainer.loggers:
            picture = mel_picture(real_mel, fake_mel, mel.config)
            for kind, audio in sounds.items():
                _show_sound(logger, f"{name}/{kind}", audio[0, 0].cpu().numpy(), step, rate)
            _show_picture(logger, f"{name}/mel", picture, step)


def _show_sound(logger: Logger, name: str, audio: np.ndarray, step: int, rate: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_audio(name, audio[None].clip(-1, 1), step, rate)
    elif hasattr(logger, "log_audio"):
        logger.log_audio(name, [audio], step=step, sample_rate=[rate])


def _show_picture(logger: Logger, name: str, picture: "Figure", step: int) -> None:
    if isinstance(logger, TensorBoardLogger):
        logger.experiment.add_figure(name, picture, step)
    elif hasattr(logger, "log_image"):
        picture.canvas.draw()
        logger.log_image(name, [np.asarray(picture.canvas.buffer_rgba())], step=step)  # type: ignore[attr-defined]
