from dataclasses import replace

import numpy as np
import pytest
import soundfile as sf
import torch
from torchaudio.functional import resample

from univnet.audio import LogMelSpectrogram
from univnet.data import AudioDataModule, Augment, SegmentDataset, check_files, scan_folder

MEL = LogMelSpectrogram(16000, n_mels=20)
LEFT, LENGTH = MEL.context[0], 4096


@pytest.fixture
def files(tmp_path, speech):
    for number in range(3):
        sf.write(tmp_path / f"{number}.wav", speech[number * 20000 :][:30000] / np.abs(speech).max() / 2, 16000)
    return check_files(scan_folder(tmp_path))[0]


def dataset(files, augment=None, **options):
    return SegmentDataset(files, MEL, LENGTH, epoch="seconds", augment=augment, **options)


def test_gain_and_polarity_are_drawn_evenly_and_repeat(files):
    plain, changed = dataset(files), dataset(files, Augment(gain=(-12, 3), polarity=True))
    again = dataset(files, Augment(gain=(-12, 3), polarity=True))
    factors = []
    for draw in range(210):
        before, after = plain[draw]["context"], changed[draw]["context"]
        place = before.abs().argmax()
        factors.append(float(after[0, place] / before[0, place]))
        torch.testing.assert_close(after, before * factors[-1], atol=1e-6, rtol=1e-5)
        assert after.abs().max() <= 1
        assert torch.equal(after, again[draw]["context"])
    decibels = 20 * np.log10(np.abs(factors))
    assert -12 <= decibels.min() < -11.5
    assert 2.5 < decibels.max() <= 3
    assert np.mean(decibels) == pytest.approx(-4.5, abs=1)
    assert np.mean(np.array(factors) < 0) == pytest.approx(0.5, abs=0.12)


def test_no_gain_pushes_beyond_full_scale(files):
    loud = [replace(file, gain=2 * file.gain) for file in files]
    plain, changed = dataset(loud), dataset(loud, Augment(gain=(20, 20)))
    for draw in range(20):
        before, after = plain[draw]["context"], changed[draw]["context"]
        assert after.abs().max() == pytest.approx(min(1.0, 10 * float(before.abs().max())), abs=1e-5)


def test_the_mel_is_that_of_the_whole_recording_at_its_speed(files):
    changed = dataset(files, Augment(speeds=[0.9, 1.0, 1.25]))
    wholes = {}
    for index, file in enumerate(files):
        audio = torch.from_numpy(sf.read(file.path, dtype="float32")[0])[None]
        for rate in (14400, 16000, 20000):
            wholes[index, rate] = MEL(resample(audio, rate, 16000)[None])[0]
    used = set()
    for draw in range(60):
        mel = MEL.frames_of(changed[draw]["context"][None])[0]
        index = changed.crops.of(draw).file
        distances = {
            rate: float((whole.unfold(1, mel.shape[1], 1).transpose(0, 1) - mel).abs().amax((1, 2)).min())
            for (of, rate), whole in wholes.items()
            if of == index
        }
        best = min(distances, key=distances.get)
        assert distances[best] < 1e-3
        used.add(best)
    assert used == {14400, 16000, 20000}


@pytest.mark.parametrize("workers", [0, 2])
def test_resuming_is_exact_with_every_option_on(files, tmp_path, workers):
    (tmp_path / "list.csv").write_text("path,speaker\n0.wav,a\n1.wav,b\n2.wav,b\n")

    def loader(workers):
        return AudioDataModule(
            manifest=str(tmp_path / "list.csv"),
            mel=MEL,
            segment_length=LENGTH,
            batch_size=2,
            num_workers=workers,
            validation=0,
            epoch="speakers",
            skip_silence=-30.0,
            augment=Augment((-6, 6), True, [0.9, 1.1]),
        ).train_dataloader()

    whole = loader(0)
    expected = [batch["context"] for _ in range(2) for batch in whole]
    first, got = loader(workers), []
    for batch in first:
        got.append(batch["context"])
        if len(got) == 4:
            break
    resumed = loader(workers)
    resumed.load_state_dict(first.state_dict())
    while len(got) < len(expected):
        got += [batch["context"] for batch in resumed]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(got, expected, strict=True))


def test_mistakes(files, tmp_path):
    with pytest.raises(ValueError, match=r"Augment: gain must be .*; speeds must be"):
        Augment(gain=(3, -3), speeds=[9.0])
    for file in files:
        np.save(file.path.with_suffix(".npy"), np.full((20, 30000 // 256), -3.0))
    given = [replace(file, mel=file.path.with_suffix(".npy")) for file in files]
    with pytest.raises(ValueError, match="given mels would not fit audio whose gain or speed"):
        dataset(given, Augment(speeds=[0.9]))
    assert dataset(given, Augment(polarity=True))[0]["mel"].shape == (20, 16)
