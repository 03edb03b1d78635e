from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from torch.utils.data import DistributedSampler

from univnet.audio import LogMelSpectrogram
from univnet.data import AudioDataModule, AudioFile, EpochSampler, SegmentDataset, check_files, scan_folder
from univnet.data.crops import Crops

WANTED = 64  # frames in a segment


def files(count, speakers="a"):
    return [AudioFile(Path(f"{i}.wav"), f"{i}.wav", speakers[i % len(speakers)]) for i in range(count)]


def crops(frames, epoch="seconds", seed=1234, speakers="a"):
    return Crops(files(len(frames), speakers), frames, WANTED, epoch, seed)


def test_files_of_one_segment_are_drawn_as_ever():
    frames = [30, 64, 100, 127, 80]  # from shorter than a segment to almost two
    for epoch in ("seconds", "files"):
        drawn = crops(frames, epoch)
        assert len(drawn) == 5
        for draw in range(20):
            number, index = divmod(draw, 5)
            crop, places = drawn.of(draw), max(frames[index] - WANTED, 0) + 1
            assert crop.file == index
            assert crop.first(places) == np.random.default_rng([1234, number, index]).integers(places)
    assert [drawn.of(draw).first(1000) for draw in range(8)] == [979, 323, 652, 211, 398, 176, 122, 127]


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"drop_last": True}, {"seed": 3}])
@pytest.mark.parametrize("ranks", [1, 2, 3, 13])
def test_the_order_is_that_of_torchs_sampler(options, ranks):
    for rank in range(ranks):
        ours = EpochSampler(range(11), ranks, rank, **options)
        theirs = DistributedSampler(range(11), ranks, rank, **{"seed": 1234, **options})
        for epoch in range(3):
            ours.set_epoch(epoch)
            theirs.set_epoch(epoch)
            assert list(ours) == list(theirs)
            ours.skip = 2
            assert list(ours) == list(theirs)[2:]
            assert len(ours) == len(theirs)


def test_an_epoch_covers_the_seconds():
    frames = [100, WANTED * 200 + 17, 20, WANTED * 3]
    drawn = crops(frames)
    assert len(drawn) == 1 + 200 + 1 + 3
    for epoch in range(3):
        items = [drawn.of(epoch * len(drawn) + item) for item in range(len(drawn))]
        assert [crop.file for crop in items] == [0] + [1] * 200 + [2] + [3] * 3
        firsts = np.array([crop.first(frames[1] - WANTED + 1) for crop in items[1:201]])
        assert (np.diff(firsts) > 0).all()  # each in a part of its own
        assert firsts[0] < WANTED
        assert firsts[-1] > frames[1] - 2 * WANTED
        heard = np.zeros(frames[1])
        for first in firsts:
            heard[first : first + WANTED] = 1
        assert heard.mean() > 0.7  # of independent places, 0.63
    assert len(crops(frames, "files")) == 4


def test_each_place_is_as_likely_as_any_other():
    """Pearson's chi-squared over twenty parts of two recordings, of which one is three times as long."""
    frames = [WANTED * 2 + 50, WANTED * 6 + 13]
    drawn = crops(frames)
    firsts = [[], []]
    for draw in range(len(drawn) * 2000):
        crop = drawn.of(draw)
        firsts[crop.file].append(crop.first(frames[crop.file] - WANTED + 1) / (frames[crop.file] - WANTED + 1))
    assert [len(each) for each in firsts] == [4000, 12000]
    for each, places in zip(firsts, frames, strict=True):
        places -= WANTED - 1
        edges = np.linspace(0, places, 21).astype(int)
        expected = np.diff(edges) / places * len(each)
        counts = np.histogram(np.array(each) * places, edges - 1e-6)[0]
        assert ((counts - expected) ** 2 / expected).sum() < 43.8  # p = 0.001 at 19 degrees of freedom


def test_speakers_take_turns():
    frames = [WANTED * 50, WANTED * 3, WANTED * 2, WANTED]
    drawn = crops(frames, "speakers", speakers="abca")
    assert len(drawn) == 56
    counts = np.bincount([drawn.of(draw).file for draw in range(56 * 60)], minlength=4) / (56 * 60)
    assert counts[1] == pytest.approx(1 / 3, abs=0.01)
    assert counts[2] == pytest.approx(1 / 3, abs=0.01)
    assert counts[0] / counts[3] == pytest.approx(50, rel=0.5)  # within a speaker, by seconds
    assert [drawn.of(draw) for draw in range(99)] == [
        crops(frames, "speakers", speakers="abca").of(draw) for draw in range(99)
    ]


def test_second_attempts_go_elsewhere_and_repeat():
    drawn = crops([WANTED * 40] * 30)
    for draw in (0, 5, 1205):
        attempts = [drawn.of(draw, attempt) for attempt in range(6)]
        assert attempts == [drawn.of(draw, attempt) for attempt in range(6)]
        assert len({(crop.file, crop.slot) for crop in attempts}) > 3
        again = [attempts[0].again(place).first(500) for place in range(1, 6)]
        assert len(set(again)) > 3
        assert {attempts[0].again(place).file for place in range(1, 6)} == {attempts[0].file}


@pytest.fixture
def two_long(tmp_path, make_audio):
    """Two recordings of many segments, and one of one."""
    for name, samples in (("a.flac", 16000 * 20), ("b.flac", 16000 * 10), ("c.flac", 3000)):
        make_audio(name, samples=samples, seed=samples)
    return tmp_path


def make(folder, **options):
    options = {"mel": LogMelSpectrogram(16000, n_mels=20), "segment_length": 8192, "batch_size": 8} | options
    return AudioDataModule(str(folder), **{"num_workers": 0, "validation": 0} | options)


def test_two_long_recordings_make_full_batches(two_long):
    loader = make(two_long).train_dataloader()
    assert len(loader.sampler) == 39 + 19 + 1
    batches = list(loader)
    assert [len(batch["context"]) for batch in batches] == [8] * 7
    everything = torch.cat([batch["context"] for batch in batches])
    assert len(everything.unique(dim=0)) == len(everything)
    with pytest.warns(UserWarning, match="3 training files of a rank do not fill a batch of 8"):
        assert len(make(two_long, epoch="files").train_dataloader()) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("epoch", ["seconds", "files", "speakers"])
def test_resuming_is_exact(two_long, workers, epoch):
    (two_long / "list.csv").write_text("path,speaker\na.flac,x\nb.flac,y\nc.flac,y\n")

    def data(workers=workers):
        return AudioDataModule(
            manifest=str(two_long / "list.csv"),
            mel=LogMelSpectrogram(16000, n_mels=20),
            segment_length=8192,
            batch_size=2,
            num_workers=workers,
            validation=0,
            epoch=epoch,
            skip_silence=-30.0,
        )

    loader = data(0).train_dataloader()
    expected = [batch["context"] for _ in range(2) for batch in loader]
    first, got = data().train_dataloader(), []
    for batch in first:
        got.append(batch["context"])
        if len(got) == min(5, len(expected) - 1):
            break
    state = first.state_dict()
    resumed = data().train_dataloader()
    resumed.load_state_dict(state)
    while len(got) < len(expected):
        got += [batch["context"] for batch in resumed]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, expected, strict=True))


def test_a_data_set_that_has_changed_is_said(two_long):
    state = make(two_long).train_dataloader().state_dict()
    with pytest.warns(UserWarning, match="had 59 items when the checkpoint was written and has 3 now"):
        make(two_long, epoch="files", batch_size=1).train_dataloader().load_state_dict(state)


def test_silent_places_are_left_on_request(tmp_path, make_audio):
    mel = LogMelSpectrogram(16000, n_mels=20)
    sound = np.zeros(16000 * 8, np.float32)
    sound[16000 * 3 : 16000 * 5] = np.random.default_rng(0).normal(0, 0.1, 32000)
    sf.write(tmp_path / "a.wav", sound, 16000)
    kept, _ = check_files(scan_folder(tmp_path))
    left, length = mel.context[0], 4096

    def silent(dataset):
        return sum(dataset[draw]["context"][0, left : left + length].abs().max() < 0.01 for draw in range(124)) / 124

    assert silent(SegmentDataset(kept, mel, length, epoch="seconds")) > 0.6
    assert silent(SegmentDataset(kept, mel, length, epoch="seconds", skip_silence=-40)) < 0.1
    sf.write(tmp_path / "a.wav", sound / 1000, 16000)
    assert SegmentDataset(kept, mel, length, skip_silence=-40)[0]["context"].abs().max() < 1e-3  # nothing else is there


def test_speakers_must_be_known(two_long):
    with pytest.raises(ValueError, match=r"epoch='speakers' needs a speaker for each file, but 3 of 3 have none"):
        make(two_long, epoch="speakers").setup()
    with pytest.raises(ValueError, match=r"epoch must be one of .*skip_silence must be .*max_faulty must be"):
        make(two_long, epoch="hours", skip_silence=3.0, max_faulty=2.0)
    known = [replace(file, speaker="x") for file in check_files(scan_folder(two_long))[0]]
    assert len(SegmentDataset(known, LogMelSpectrogram(16000), 8192, epoch="speakers")) == 59
