import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import CSVLogger

from univnet import AudioDataModule, LogMelSpectrogram
from univnet.data import FaultyDataError, SegmentDataset, UtteranceDataset, check_files, scan_folder
from univnet.data.faults import TRIES, FaultCount, collate

MEL = LogMelSpectrogram(16000, n_mels=20)


def rewrite(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        audio, rate = sf.read(path, dtype="float32")
        sf.write(path, change(audio), rate, subtype="FLOAT")

    return spoil


SPOILED = {
    "vanishes": lambda path: path.unlink(),
    "is truncated": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "is empty": lambda path: path.write_bytes(b""),
    "is no audio any more": lambda path: path.write_text("a page of the provider's"),
    "becomes a folder": lambda path: (path.unlink(), path.mkdir()),
    "explodes": rewrite(lambda x: x * 1e18),
    "explodes beyond float32 when resampled": rewrite(lambda x: x / np.abs(x).max() * 3.3e38),
    "turns NaN": rewrite(lambda x: x * np.nan),
    "becomes shorter": rewrite(lambda x: x[:100]),
}


@pytest.fixture
def folder(tmp_path, make_audio):
    for i in range(6):
        make_audio(f"{i}.wav", samples=30000, seed=i)
    return tmp_path


def make(folder, **options):
    return AudioDataModule(
        str(folder), mel=MEL, **{"segment_length": 4096, "batch_size": 4, "num_workers": 0, "validation": 0} | options
    )


@pytest.mark.parametrize("kind", SPOILED)
def test_the_crop_is_drawn_elsewhere(folder, kind):
    files, _ = check_files(scan_folder(folder))
    untouched = SegmentDataset(files, MEL, 4096, epoch="seconds", tries=TRIES)
    before = [untouched[draw] for draw in range(42)]
    SPOILED[kind](folder / "2.wav")
    again = [SegmentDataset(files, MEL, 4096, epoch="seconds", tries=TRIES)[draw] for draw in range(42)]
    for draw, (was, now) in enumerate(zip(before, again, strict=True)):
        assert torch.isfinite(now["context"]).all()
        assert now["context"].abs().max() <= 1
        if untouched.crops.of(draw).file != 2:
            assert torch.equal(was["context"], now["context"])  # nothing else moves
            assert "faults" not in now
        else:
            assert not torch.equal(was["context"], now["context"])
            assert {path for path, _ in now["faults"]} == {str(folder / "2.wav")}
            assert all("2.wav" in why for _, why in now["faults"])
            assert torch.equal(now["context"], untouched[draw]["context"])
    with pytest.raises(ValueError, match=r"2\.wav"):
        SegmentDataset(files, MEL, 4096)[2]  # one try: what is wrong


def test_workers_and_ranks_agree_on_where(folder):
    modules = [make(folder, num_workers=workers) for workers in (0, 2)]
    for data in modules:
        data.setup()
    (folder / "4.wav").unlink()
    for ours, theirs in zip(*(data.train_dataloader() for data in modules), strict=True):
        assert torch.equal(ours["context"], theirs["context"])
        assert ours.get("faults") == theirs.get("faults")


class Recorder(LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.trained = []

    def training_step(self, batch, batch_idx):
        self.trained.append(batch)
        return self.weight.sum() * 0

    def validation_step(self, batch, batch_idx):
        self.trained.append(batch)

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, folder, checkpoint=None, **options):
    module = Recorder()
    trainer = Trainer(
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        log_every_n_steps=1,
        **{"max_epochs": 3, "enable_checkpointing": False} | options,
    )
    trainer.fit(module, data, ckpt_path=checkpoint, weights_only=True)
    return module, trainer


@pytest.mark.parametrize("workers", [0, 2])
def test_named_once_counted_and_logged(folder, tmp_path, caplog, workers):
    data = make(folder, num_workers=workers, max_faulty=1.0)
    data.setup()
    (folder / "1.wav").unlink()
    (folder / "3.wav").write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="univnet.data.faults"):
        module, _ = fit(data, tmp_path / "logs")
    assert len(module.trained) == 3 * (42 // 4)
    assert all(batch.keys() == {"audio", "mel"} for batch in module.trained)
    named = [record.getMessage() for record in caplog.records]
    assert len(named) == 2
    assert sum("1.wav" in text for text in named) == sum("3.wav" in text for text in named) == 1
    assert data.faults.faulty >= 3 * 7 + 3 * 7 - 3 * 2  # each epoch leaves two items out
    rows = np.genfromtxt(tmp_path / "logs" / "metrics.csv", delimiter=",", names=True)
    counts = rows["datafaulty_crops"][~np.isnan(rows["datafaulty_crops"])]
    assert (np.diff(counts) > 0).all()
    assert counts[-1] == data.faults.faulty


def test_more_than_the_share_ends_training(folder, tmp_path):
    data = make(folder, max_faulty=0.01)
    data.setup()
    (folder / "1.wav").unlink()
    with pytest.raises(FaultyDataError, match=r"More than 0.01 of the last 1000 crops.*1\.wav.*data\.max_faulty"):
        fit(data, tmp_path / "logs", max_epochs=20)
    assert 10 <= data.faults.faulty <= 14


def test_nothing_left_to_read_ends_training_at_once(folder, tmp_path):
    data = make(folder, max_faulty=1.0)
    data.setup()
    for path in folder.glob("*.wav"):
        path.unlink()
    with pytest.raises(FaultyDataError, match=r"10 recordings in a row could not be read.*are the data still there"):
        fit(data, tmp_path / "logs")


def test_a_share_far_below_the_limit_goes_on_for_ever():
    count = FaultCount()
    for batch in range(5000):
        count = count.after(10, [("a", "a is bad.")] * (batch % 4 == 0), 0.05)
    assert count.share == pytest.approx(0.025, abs=0.002)
    assert (count.faulty, count.named) == (1250, ("a",))
    with pytest.raises(FaultyDataError, match=r"\(1280 since the start, of 1 recordings; the last: a is bad\)"):
        count.after(10, [("a", "a is bad.")] * 30, 0.05)


class StopAt13(Callback):
    def __init__(self, path):
        self.path = path

    def on_train_batch_end(self, trainer, module, *args):
        if len(module.trained) == 13:
            trainer.save_checkpoint(self.path)
            trainer.should_stop = True


def test_resuming_goes_on_exactly(folder, tmp_path, caplog):
    """Stopped in the second epoch and resumed: the same batches, counts and shares, and nothing named twice."""

    def spoiled():
        data = make(folder, max_faulty=1.0)
        data.setup()
        (folder / "5.wav").exists() and (folder / "5.wav").rename(folder / "5.gone")
        return data

    uninterrupted = spoiled()
    expected, _ = fit(uninterrupted, tmp_path / "a", max_epochs=2)
    caplog.clear()
    (folder / "5.gone").rename(folder / "5.wav")
    data = spoiled()
    stopped, _ = fit(data, tmp_path / "b", max_epochs=2, callbacks=[StopAt13(tmp_path / "stopped.ckpt")])
    (folder / "5.gone").rename(folder / "5.wav")
    data = spoiled()
    resumed, _ = fit(data, tmp_path / "c", tmp_path / "stopped.ckpt", max_epochs=2)
    got = stopped.trained + resumed.trained
    assert all(torch.equal(ours["audio"], theirs["audio"]) for ours, theirs in zip(got, expected.trained, strict=True))
    assert data.faults == uninterrupted.faults
    assert sum("5.wav" in record.getMessage() for record in caplog.records) == 1


def test_a_validation_file_that_is_gone_is_replaced_by_the_next(folder, tmp_path, caplog):
    data = make(folder, validation=3)
    data.setup()
    gone, following, _ = data.validation_dataset.files
    gone.path.unlink()
    loader = data.val_dataloader()
    names = [batch["name"] for batch in loader]
    assert names[0] == names[1] == [following.name]
    module = Recorder()
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.validate(module, data)
    assert len(module.trained) == 3
    assert gone.name in caplog.text
    with pytest.raises(IndexError):
        UtteranceDataset(data.validation_dataset.files, MEL)[3]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda path: path.unlink(),
        lambda path: np.save(path, np.full((20, 117), np.nan)),
        lambda path: np.save(path, np.full((20, 117), -80.0)),
        lambda path: np.save(path, np.zeros((20, 7))),
        lambda path: path.write_bytes(path.read_bytes()[:1000]),
    ],
)
def test_mels_that_turn_bad(folder, spoil):
    (folder / "list.csv").write_text("path,mel\n" + "".join(f"{i}.wav,{i}.npy\n" for i in range(6)))
    for i in range(6):
        np.save(folder / f"{i}.npy", np.full((20, 117), -i, np.float32))
    data = AudioDataModule(None, str(folder / "list.csv"), MEL, 4096, num_workers=0, validation=0)
    data.setup()
    spoil(folder / "2.npy")
    items = [data.train_dataset[draw] for draw in range(42)]
    assert {float(item["mel"][0, 0]) for item in items} == {0.0, -1.0, -3.0, -4.0, -5.0}
    assert collate(items)["faults"]
    assert {path for path, _ in collate(items)["faults"]} == {str(folder / "2.npy")}
