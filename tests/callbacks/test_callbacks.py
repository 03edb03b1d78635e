"""What the callbacks give to loggers and keep on disk, against a real trainer on a toy module."""

import os
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.loggers import Logger
from support.small import MEL, small_univnet
from torch.utils.data import DataLoader

from univnet import LogMelSpectrogram, UnivNet
from univnet.audio.picture import mel_picture
from univnet.callbacks import AudioThroughput, LastCheckpoint, ValidationSamples
from univnet.gan import Updates


def univnet(accumulate: int = 1) -> UnivNet:
    return small_univnet(generator_updates=Updates(accumulate=accumulate))


@pytest.fixture
def loader(speech: np.ndarray) -> DataLoader:
    audio = torch.from_numpy(speech[8000 : 8000 + 6 * 2048]).reshape(6, 1, 1, 2048)
    return DataLoader([{"audio": a, "mel": LogMelSpectrogram(**MEL)(a)} for a in audio], batch_size=None)


class WandbLike(Logger):
    """Takes what WandbLogger takes, by the same signatures."""

    name, version, save_dir = "wandb-like", "0", None

    def __init__(self) -> None:
        self.metrics: list[tuple[int, dict[str, float]]] = []
        self.audio: list[SimpleNamespace] = []
        self.images: list[SimpleNamespace] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        assert step is not None
        self.metrics.append((step, metrics))

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass

    def log_audio(self, key: str, audios: list[Any], step: int | None = None, **kwargs: Any) -> None:
        for k, v in kwargs.items():
            assert len(v) == len(audios), k  # WandbLogger demands it
        self.audio.append(SimpleNamespace(key=key, audios=audios, step=step, **kwargs))

    def log_image(self, key: str, images: list[Any], step: int | None = None, **kwargs: Any) -> None:
        self.images.append(SimpleNamespace(key=key, images=images, step=step))


class Deaf(Logger):
    """Can log numbers alone."""

    name, version, save_dir = "deaf", "0", None

    def log_metrics(self, *_: Any, **__: Any) -> None:
        pass

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        pass


def trainer(tmp_path: Path, callbacks: list[Callback], **options: Any) -> Trainer:
    defaults: dict[str, Any] = {
        "accelerator": "cpu",
        "logger": False,
        "default_root_dir": tmp_path,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "num_sanity_val_steps": 0,
        "max_epochs": 1,
        "log_every_n_steps": 1,
        "callbacks": callbacks,
        "enable_checkpointing": any(isinstance(callback, LastCheckpoint) for callback in callbacks),
    }
    return Trainer(**defaults | options)


def test_a_wandb_like_logger_gets_the_sounds_and_the_pictures(tmp_path: Path, loader: DataLoader) -> None:
    logger, model = WandbLike(), univnet()
    run = trainer(tmp_path, [ValidationSamples(count=2)], logger=[logger, Deaf()], max_epochs=2, num_sanity_val_steps=1)
    run.fit(model, loader, loader)
    heard = [(sound.key, sound.step) for sound in logger.audio]
    once = [(f"sample_{i}/{kind}", 6) for i in (0, 1) for kind in ("generated", "real")]
    assert heard == [*once, ("sample_0/generated", 12), ("sample_1/generated", 12)]
    real = next(sound for sound in logger.audio if sound.key == "sample_1/real")
    np.testing.assert_array_equal(real.audios[0], loader.dataset[1]["audio"][0, 0])
    assert {tuple(sound.sample_rate) for sound in logger.audio} == {(16000,)}
    assert [(image.key, image.step) for image in logger.images] == [
        (f"sample_{i}/mel", step) for step in (6, 12) for i in (0, 1)
    ]
    [picture] = logger.images[0].images
    assert picture.dtype == np.uint8
    assert picture.ndim == 3
    assert picture.std() > 10


def test_throughput_is_the_audio_trained_on_since_last_logged(
    tmp_path: Path, loader: DataLoader, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(1000))
    monkeypatch.setattr("univnet.callbacks.throughput.time.perf_counter", lambda: float(next(clock)))
    logger = WandbLike()
    run = trainer(tmp_path, [AudioThroughput()], logger=logger, val_check_interval=4, check_val_every_n_epoch=None)
    run.fit(univnet(accumulate=2), loader, loader)
    name = "throughput/audio_seconds_per_second"
    logged = [(step, metrics[name]) for step, metrics in logger.metrics if name in metrics]
    assert [step for step, _ in logged] == [1, 2, 3]
    # Two micro-batches of 2048 samples in a tick of this clock, the validation at update 2 left out.
    assert [value for _, value in logged] == pytest.approx([2 * 2048 / 16000] * 3)


def test_a_picture_shows_both_and_their_difference() -> None:
    real, fake = np.random.default_rng(0).normal(size=(2, 20, 50))
    figure = mel_picture(real, fake, LogMelSpectrogram(**MEL).config, title="ru_0014")
    shown = [ax.images[0].get_array() for ax in figure.axes[:3]]
    for picture, expected in zip(shown, (real, fake, fake - real), strict=True):
        np.testing.assert_allclose(picture, expected)
    assert figure.axes[2].get_xlim() == pytest.approx((0, 50 * 256 / 16000))


class Note(Callback):
    """Notes what last.ckpt holds after each micro-batch and validation."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.held: list[int | None] = []

    def on_train_batch_start(self, *_: Any) -> None:
        held = torch.load(self.path, weights_only=True)["global_step"] if self.path.exists() else None
        self.held.append(held)


class TestLastCheckpoint:
    def test_it_is_written_every_so_many_updates_and_at_the_end(self, tmp_path: Path, loader: DataLoader) -> None:
        path = tmp_path / "checkpoints" / "last.ckpt"
        note = Note(path)
        run = trainer(tmp_path, [note, LastCheckpoint(every_n_train_steps=2)], max_steps=9, max_epochs=-1)
        run.fit(univnet(), loader)
        assert note.held == [None, None, 2, 2, 4, 4, 6, 6, 8]
        assert torch.load(path, weights_only=True)["global_step"] == 9

    def test_it_is_written_after_validation_and_where_the_run_is_told_to_stop(
        self, tmp_path: Path, loader: DataLoader
    ) -> None:
        class Stop(Callback):
            def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
                trainer.should_stop = trainer.global_step == 5

        path = tmp_path / "checkpoints" / "last.ckpt"
        note = Note(path)
        options: dict[str, Any] = {"val_check_interval": 4, "check_val_every_n_epoch": None}
        run = trainer(tmp_path, [note, Stop(), LastCheckpoint()], **options)
        run.fit(univnet(), loader, loader)
        assert note.held == [None, None, None, None, 4]
        last = torch.load(path, weights_only=True)
        assert last["global_step"] == 5
        assert last["loops"]["fit_loop"]["epoch_progress"]["current"]["completed"] == 0  # within the epoch

    @pytest.mark.parametrize(("times", "ends"), [(1, [1, 2]), (2, [1])], ids=["first", "second"])
    def test_a_second_ctrl_c_is_obeyed_at_once_and_the_first_at_the_micro_batchs_end(
        self, times: int, ends: list[int], tmp_path: Path, loader: DataLoader
    ) -> None:
        ended = []

        module = univnet()

        def press(*_: Any) -> None:
            for _ in range(times * (module.global_step == 1)):
                os.kill(os.getpid(), signal.SIGINT)

        class Note(Callback):
            def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
                ended.append(trainer.global_step)

        module.generator.register_forward_pre_hook(press)
        with pytest.raises(SystemExit) as exited:
            trainer(tmp_path, [Note(), LastCheckpoint()]).fit(module, loader)
        assert exited.value.code == 128 + signal.SIGINT
        assert ended == ends
        last = tmp_path / "checkpoints" / "last.ckpt"
        assert last.exists() == (times == 1)
        assert times == 2 or torch.load(last, weights_only=True)["global_step"] == 2

    def test_between_micro_batches_ctrl_c_is_obeyed_at_once(self, tmp_path: Path, loader: DataLoader) -> None:
        class Stuck(list):
            def __getitem__(self, index: int) -> Any:
                if index == 2:
                    os.kill(os.getpid(), signal.SIGINT)
                    raise AssertionError("it went on")
                return super().__getitem__(index)

        stuck = DataLoader(Stuck(loader.dataset), batch_size=None)
        with pytest.raises(SystemExit) as exited:
            trainer(tmp_path, [LastCheckpoint()]).fit(univnet(), stuck)
        assert exited.value.code == 128 + signal.SIGINT
        assert torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 2

    def test_it_gives_ctrl_c_back(self, tmp_path: Path, loader: DataLoader) -> None:
        before = signal.getsignal(signal.SIGINT)
        during = []

        class Look(Callback):
            def on_train_batch_start(self, *_: Any) -> None:
                during.append(signal.getsignal(signal.SIGINT))
                raise RuntimeError("anything")

        with pytest.raises(RuntimeError, match="anything"):
            trainer(tmp_path, [Look(), LastCheckpoint()]).fit(univnet(), loader)
        assert signal.getsignal(signal.SIGINT) is before
        assert during[0] is not before
        assert not (tmp_path / "checkpoints" / "last.ckpt").exists()  # within a micro-batch: nothing fit to save

    def test_its_interval_is_positive(self) -> None:
        with pytest.raises(ValueError, match="every_n_train_steps must be at least 1, got 0"):
            LastCheckpoint(0)
