import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from lightning import LightningModule, Trainer

from univnet import AudioDataModule, LogMelSpectrogram

pytestmark = pytest.mark.filterwarnings("ignore:.*audio files are resampled.*")


def make(demo, **options):
    mel = LogMelSpectrogram(16000, n_mels=20)
    options = {"mel": mel, "segment_length": 8192, "batch_size": 8, "num_workers": 0, "check": "header"} | options
    options = {"epoch": "files"} | options
    return AudioDataModule(None if "manifest" in options else str(demo), **options)


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained, self.validated = [], []

    def training_step(self, batch, batch_idx):
        self.trained.append(batch)
        return self.weight.sum() * 0

    def validation_step(self, batch, batch_idx):
        self.validated.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, **options):
    module = Recorder()
    options = {"max_epochs": 1, "num_sanity_val_steps": 0} | options
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, **options)
    trainer.fit(module, data)
    return module


def test_lightning_gets_audio_and_mel(demo):
    data = make(demo, validation=2)
    module = fit(data)
    assert len(module.trained) == 39 // 8
    for batch in module.trained:
        assert batch.keys() == {"audio", "mel"}
        assert batch["audio"].shape == (8, 1, 8192)
        assert batch["mel"].shape == (8, 20, 32)
        # away from the segment's ends, the mel of the segment alone is the same
        torch.testing.assert_close(data.mel(batch["audio"])[..., 2:-2], batch["mel"][..., 2:-2], atol=1e-5, rtol=0)
        assert not torch.allclose(data.mel(batch["audio"])[..., -1], batch["mel"][..., -1], atol=1e-2)
    assert len(module.validated) == 2
    for batch, file in zip(module.validated, data.validation_dataset.files, strict=True):
        assert batch["name"] == [file.name]
        assert batch["audio"].shape == (1, 1, file.length(16000) // 256 * 256)
        assert torch.equal(data.mel(batch["audio"]), batch["mel"])


@pytest.mark.parametrize("workers", [1, 2])
def test_batches_do_not_hang_on_workers(demo, workers):
    expected = list(make(demo).train_dataloader())
    for ours, theirs in zip(make(demo, num_workers=workers).train_dataloader(), expected, strict=True):
        assert torch.equal(ours["context"], theirs["context"])


def test_epochs_and_seeds_differ_and_repeat(demo):
    loader, again, other = (make(demo, validation=0, seed=seed).train_dataloader() for seed in (1, 1, 2))
    epochs = [next(iter(loader))["context"] for loader.sampler.epoch in (0, 1)]
    assert not torch.equal(*epochs)
    for again.sampler.epoch in (1, 0):
        assert torch.equal(next(iter(again))["context"], epochs[again.sampler.epoch])
    assert not torch.equal(next(iter(other))["context"], epochs[0])


def on(device: str) -> SimpleNamespace:
    return SimpleNamespace(root_device=torch.device(device))


@pytest.mark.parametrize(("device", "pinned"), [("cpu", False), ("cuda:1", True), (None, False)])
def test_memory_is_pinned_for_a_trainer_on_a_gpu_alone(demo, device, pinned, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    data = make(demo, validation=1)
    data.trainer = device and SimpleNamespace(world_size=1, global_rank=0, strategy=on(device))
    assert [loader.pin_memory for loader in (data.train_dataloader(), data.val_dataloader())] == [pinned] * 2


def test_ranks_read_different_files(demo):
    draws = []
    for rank in range(2):
        data = make(demo, validation=1)
        data.trainer = SimpleNamespace(world_size=2, global_rank=rank, strategy=on("cpu"))
        draws.append(list(data.train_dataloader().sampler))
    assert len(draws[0]) == len(draws[1]) == 20
    assert not set(draws[0]) & set(draws[1])


def test_random_numbers_are_left_alone(demo):
    data = make(demo, validation=2)
    before = torch.get_rng_state()
    next(iter(data.train_dataloader()))
    next(iter(data.val_dataloader()))
    assert torch.equal(torch.get_rng_state(), before)


def test_few_files_make_one_small_batch(demo):
    with pytest.warns(UserWarning, match="39 training files of a rank do not fill a batch of 64"):
        loader = make(demo, batch_size=64, validation=2).train_dataloader()
    assert [len(batch["context"]) for batch in loader] == [39]
    assert [len(batch["context"]) for batch in make(demo, batch_size=20, validation=2).train_dataloader()] == [20]
    whole = make(demo, batch_size=20, validation=2, drop_last=False).train_dataloader()
    assert [len(batch["context"]) for batch in whole] == [20, 19]


def test_batch_size_can_be_set_between_loaders(demo):
    data = make(demo)
    assert data.train_dataloader().batch_size == 8
    data.batch_size = 3
    assert data.train_dataloader().batch_size == 3


def test_no_validation(demo):
    module = fit(make(demo, validation=0))
    assert len(module.trained) == 41 // 8
    assert not module.validated


def test_manifests_speakers_and_validation_seconds(demo):
    manifest = str(demo / "manifest.tsv")
    data = make(demo, manifest=manifest, validation_manifest=manifest, validation_seconds=0.5)
    data.setup()
    assert len(data.train_dataset) == len(data.validation_dataset) == 41
    assert data.train_dataset.files[0].speaker == "ru-m"
    assert {item["audio"].shape for item in data.validation_dataset} == {(1, 8000 // 256 * 256)}


def test_given_mels_reach_the_module(tmp_path, make_audio):
    for name in "abc":
        make_audio(f"{name}.wav", samples=16000)
        np.save(tmp_path / f"{name}.npy", (np.arange(62) / 16 - 5) * np.ones((20, 1)))
    (tmp_path / "list.csv").write_text("path,mel\n" + "".join(f"{name}.wav,{name}.npy\n" for name in "abc"))
    module = fit(make(tmp_path, manifest=str(tmp_path / "list.csv"), validation=1, batch_size=2))
    steps = module.trained[0]["mel"].diff(dim=-1)
    assert torch.equal(steps, torch.ones_like(steps) / 16)
    assert torch.equal(module.validated[0]["mel"][0, 0], torch.arange(62.0) / 16 - 5)


def test_resampling_and_bad_files_are_said_once(tmp_path, make_audio):
    for i, rate in enumerate((16000, 22050, 44100, 24000)):
        make_audio(f"{i}.wav", samples=rate, rate=rate)
    (tmp_path / "bad.wav").write_text("not audio")
    data = AudioDataModule(str(tmp_path), batch_size=1, num_workers=0, validation=1)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        data.setup("fit")
        data.setup("validate")
        batches = list(data.train_dataloader())
    assert len(batches) == 3
    messages = [str(warning.message) for warning in caught]
    assert len(messages) == 2
    assert "1 of 5 audio files are left out: 1 unreadable" in messages[0]
    assert "3 audio files are resampled to 24000 Hz" in messages[1]
    assert all(batch["context"].shape == (1, 1, 16384 + 768) for batch in batches)


def test_every_mistake_at_once(demo):
    with pytest.raises(ValueError, match=r"root or manifest.*segment_length.*batch_size.*validation.*short"):
        AudioDataModule(segment_length=1000, batch_size=0, validation=1.5, short="drop")
    with pytest.raises(ValueError, match="either root or manifest"):
        AudioDataModule(str(demo), str(demo / "manifest.tsv"))
    with pytest.raises(FileNotFoundError, match="nowhere"):
        AudioDataModule("nowhere").setup()
    with pytest.raises(ValueError, match="leaves none of the 41 files"):
        make(demo, validation=41).setup()


def test_other_batches_pass(demo):
    data = make(demo)
    assert data.on_after_batch_transfer([1], 0) == [1]
    assert data.on_after_batch_transfer({"x": 1}, 0) == {"x": 1}


def test_more_readers_than_processors_are_told_of_once_by_the_options_name(
    demo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("univnet.data.datamodule.available_processors", lambda: 2)
    data = make(demo, num_workers=3)
    with pytest.warns(UserWarning, match=r"data\.num_workers is 3, but this process may use 2 CPUs"):
        data.setup()
    assert data.num_workers == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        data.setup()
        make(demo, num_workers=2).setup()
