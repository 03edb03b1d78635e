import warnings
from dataclasses import replace

import numpy as np
import pytest
import torch

from univnet.audio import LogMelSpectrogram, read_segment
from univnet.data import SegmentDataset, UtteranceDataset, check_files, scan_folder

MEL = LogMelSpectrogram(16000, n_mels=20)
HOP = MEL.hop_length


def mel_of_whole(file, least=0):
    audio = read_segment(file.path, 0, file.length(MEL.sample_rate), MEL.sample_rate)
    return MEL(torch.nn.functional.pad(audio, (0, max(0, least - audio.shape[1])))[None])[0]


def find(piece, whole):
    """Frame at which `piece` stands in `whole`, and the distance there."""
    windows = whole.unfold(1, piece.shape[1], 1).transpose(0, 1)
    distance = (windows - piece).abs().amax((1, 2))
    return int(distance.argmin()), float(distance.min())


@pytest.mark.parametrize("extension", ["wav", "flac", "ogg"])
@pytest.mark.parametrize("samples", [300, HOP * 8, HOP * 8 + 1, HOP * 9 - 1, HOP * 9, HOP * 11 + 77])
def test_a_segments_frames_are_those_of_the_whole_recording(tmp_path, make_audio, samples, extension):
    make_audio(f"a.{extension}", samples=samples, channels=2)
    dataset = SegmentDataset(check_files(scan_folder(tmp_path))[0], MEL, 8 * HOP)
    whole, left = mel_of_whole(dataset.files[0], 8 * HOP), MEL.context[0]
    found = set()
    for draw in range(30):
        context = dataset[draw]["context"]
        assert context.shape == (1, 8 * HOP + sum(MEL.context))
        first, distance = find(MEL.frames_of(context[None])[0], whole)
        assert distance <= 1e-5
        found.add(first)
        audio = context[:, left : left + 8 * HOP]
        part = read_segment(dataset.files[0].path, first * HOP, min(samples - first * HOP, 8 * HOP), 16000)
        assert torch.equal(audio[:, : part.shape[1]], part)
        assert not audio[:, part.shape[1] :].any()
    assert found == set(range(max(samples, 8 * HOP) // HOP - 7))  # every place is drawn, both ends too


def test_segments_shorter_than_the_reflection(tmp_path, make_audio):
    make_audio("a.wav", samples=HOP + 5)
    make_audio("b.wav", samples=100)
    dataset = SegmentDataset(check_files(scan_folder(tmp_path))[0], MEL, HOP)
    for draw in range(2):
        whole = mel_of_whole(dataset.files[draw], HOP)
        torch.testing.assert_close(MEL.frames_of(dataset[draw]["context"][None])[0], whole, atol=1e-5, rtol=0)


def test_segments_of_resampled_speech(demo):
    mel = LogMelSpectrogram(22050, n_mels=80, f_max=7000.0)
    dataset = SegmentDataset(check_files(scan_folder(demo)[:3], "header")[0], mel, 16 * 256)
    for draw in range(6):
        file = dataset.files[draw % 3]
        whole = mel(read_segment(file.path, 0, file.length(22050), 22050)[None])[0]
        _, distance = find(mel.frames_of(dataset[draw]["context"][None])[0], whole)
        assert distance < 2e-3  # near-silent bands; the audio itself is equal to 1e-6


def test_draws_repeat_and_epochs_and_seeds_differ(demo):
    files = check_files(scan_folder(demo)[:4], "header")[0]
    dataset, again = SegmentDataset(files, MEL), SegmentDataset(files, MEL)
    other = SegmentDataset(files, MEL, seed=1)
    assert len(dataset) == 4
    for draw in (0, 3, 9):
        context = dataset[draw]["context"]
        assert torch.equal(context, again[draw]["context"])
        assert not torch.equal(context, dataset[draw + 4]["context"])
        assert not torch.equal(context, other[draw]["context"])


def test_short_recordings_are_skipped_on_request(tmp_path, make_audio):
    make_audio("a.wav", samples=HOP * 8)
    make_audio("b.wav", samples=HOP * 8 - 1)
    files = check_files(scan_folder(tmp_path))[0]
    with pytest.warns(UserWarning, match="1 of 2 files are shorter"):
        dataset = SegmentDataset(files, MEL, 8 * HOP, short="skip")
    assert [file.name for file in dataset.files] == ["a.wav"]
    with pytest.raises(ValueError, match="None of the 2 files"):
        SegmentDataset(files, MEL, 16 * HOP, short="skip")


@pytest.fixture
def with_mels(tmp_path, make_audio):
    """Two recordings with mels that say which frame is which, in sixteenths; one shorter than a segment of 8 frames."""
    make_audio("a.wav", samples=HOP * 12)
    make_audio("b.wav", samples=HOP * 5)
    files, _ = check_files(scan_folder(tmp_path))

    def make(*frames):
        for file, count in zip(files, frames, strict=True):
            np.save(file.path.with_suffix(".npy"), np.arange(count) / 16 * np.ones((20, 1)))
        return [replace(file, mel=file.path.with_suffix(".npy")) for file in files]

    return make


@pytest.mark.parametrize("off", [-2, 0, 2])
def test_given_mels_are_cut_at_the_same_frames(with_mels, off):
    dataset = SegmentDataset(with_mels(12 + off, 5 + off), MEL, 8 * HOP)
    whole, firsts = mel_of_whole(dataset.files[0]), set()
    for draw in range(0, 60, 2):
        item = dataset[draw]
        assert item["mel"].shape == (20, 8)
        assert item["mel"].dtype == torch.float32
        first, distance = find(MEL.frames_of(item["context"][None])[0], whole)
        assert distance <= 1e-5
        assert torch.equal(item["mel"][0] * 16, torch.arange(first, first + 8.0))
        firsts.add(first)
    assert firsts == set(range(min(12 + off, 12) - 7))
    short, count = dataset[1]["mel"][0], min(5 + off, 5)
    assert torch.equal(short[:count] * 16, torch.arange(float(count)))
    assert torch.allclose(short[count:], torch.tensor(1e-5).log())
    audio = dataset[1]["context"][:, MEL.context[0] :]
    assert audio[:, : count * HOP].any()
    assert not audio[:, count * HOP :].any()

    long, short = UtteranceDataset(dataset.files, MEL)
    for item, expected in ((long, min(12, 12 + off)), (short, min(5, 5 + off))):
        assert item["mel"].shape == (20, expected)
        assert item["audio"].shape == (1, expected * HOP)


def test_mels_that_do_not_fit_are_named(with_mels, tmp_path):
    for frames in (9, 15):
        with pytest.raises(ValueError, match=r"1 of 2 mels do not fit.*a\.npy has the shape .* needs \(20, 12\)"):
            SegmentDataset(with_mels(frames, 5), MEL, 8 * HOP)
    files = with_mels(12, 5)
    dataset = SegmentDataset(files, MEL, 8 * HOP)
    np.save(tmp_path / "a.npy", np.zeros((80, 12)))
    with pytest.raises(ValueError, match=r"a\.npy has the shape \(80, 12\)"):
        dataset[0]  # changed since
    np.save(tmp_path / "a.npy", np.array([{}]))
    with pytest.raises(ValueError, match=r"a\.npy is not a readable"):
        UtteranceDataset(files, MEL)
    mixed = [files[0], replace(files[1], mel=None)]
    for kind in (SegmentDataset, UtteranceDataset):
        with pytest.raises(ValueError, match=r"1 of 2 files name no mel .* b\.wav"):
            kind(mixed, MEL)


def test_every_mistake_at_once(demo):
    files = check_files(scan_folder(demo)[:1], "header")[0]
    with pytest.raises(ValueError, match=r"segment_length.*short"):
        SegmentDataset(files, MEL, 1000, short="drop")


def test_utterances_are_whole_frames(tmp_path, make_audio):
    for name, samples in (("a.wav", 16000), ("b.wav", 100), ("c.flac", HOP * 3)):
        make_audio(name, samples=samples)
    files, _ = check_files(scan_folder(tmp_path))
    items = list(UtteranceDataset(files, MEL))
    assert [item["name"] for item in items] == ["a.wav", "b.wav", "c.flac"]
    assert [item["audio"].shape for item in items] == [(1, 16000 // HOP * HOP), (1, HOP), (1, HOP * 3)]
    cut = UtteranceDataset(files, MEL, max_seconds=0.5)[0]["audio"]
    assert torch.equal(cut, items[0]["audio"][:, : 8000 // HOP * HOP])


def test_reading_does_not_warn(demo):
    dataset = SegmentDataset(check_files(scan_folder(demo)[:1], "header")[0], MEL)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dataset[0]
