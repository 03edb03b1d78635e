import struct
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch

from univnet.audio import LogMelSpectrogram
from univnet.data import AudioFile, SegmentDataset, check_files, scan_folder
from univnet.data.check import warn_of_resampling

MEL = LogMelSpectrogram(16000, n_mels=20)


def names(files):
    return [file.name for file in files]


@pytest.fixture
def bad_folder(tmp_path, make_audio) -> Path:
    """Two good files, and one or two of each bad kind."""
    make_audio("good.flac", samples=16000)
    make_audio("good_stereo.wav", samples=24000, channels=2, rate=24000)
    for name in ("cut.wav", "cut.flac"):
        path = make_audio(name, samples=32000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    (tmp_path / "text.wav").write_text("not audio")
    (tmp_path / "zero.wav").write_bytes(b"")
    sf.write(tmp_path / "empty.wav", np.zeros(0), 16000)
    sf.write(tmp_path / "silent.wav", np.full(16000, 5e-5), 16000)
    for name, value in (("nan.wav", np.nan), ("inf.wav", np.inf)):
        sf.write(tmp_path / name, np.r_[np.ones(1000) / 2, value], 16000, subtype="FLOAT")
    return tmp_path


def test_bad_files_are_left_out_and_counted(bad_folder):
    listed = [*scan_folder(bad_folder), AudioFile(bad_folder / "gone.wav", "gone.wav")]
    listed.append(AudioFile(bad_folder / "good.flac", "no mel", mel=bad_folder / "gone.npy"))
    with pytest.warns(UserWarning, match=r"10 of 12 audio files are left out") as caught:
        kept, dropped = check_files(listed)
    assert [(file.name, file.samples, file.sample_rate) for file in kept] == [
        ("good.flac", 16000, 16000),
        ("good_stereo.wav", 24000, 24000),
    ]
    assert {reason: names(files) for reason, files in dropped.items()} == {
        "truncated": ["cut.flac", "cut.wav"],
        "empty": ["empty.wav"],
        "with NaN or infinity": ["inf.wav", "nan.wav"],
        "silent": ["silent.wav"],
        "unreadable": ["text.wav", "zero.wav"],
        "missing": ["gone.wav"],
        "without their mel file": ["no mel"],
    }
    assert len(caught) == 1
    assert "2 truncated, for example" in str(caught[0].message)
    assert "cut.flac" in str(caught[0].message)


def test_headers_alone(bad_folder):
    with pytest.warns(UserWarning, match="4 of 10"):
        kept, _ = check_files(scan_folder(bad_folder), check="header")
    assert {"cut.flac", "silent.wav", "nan.wav", "inf.wav"} < set(names(kept))


def test_no_file_left_is_an_error(tmp_path):
    (tmp_path / "text.wav").write_text("not audio")
    with pytest.raises(ValueError, match=r"None of the 1 audio files can be used: 1 unreadable, for example .*text"):
        check_files(scan_folder(tmp_path))


def test_a_streamed_wav_is_whole(tmp_path, make_audio):
    path = make_audio("streamed.wav")  # as ffmpeg writes into a pipe: the length in the header means nothing
    data = bytearray(path.read_bytes())
    data[data.find(b"data") + 4 :][:4] = data[4:8] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    assert check_files(scan_folder(tmp_path))[0][0].samples == 16000


def test_resampling_is_said_once():
    files = [AudioFile(Path(n), n, samples=1, sample_rate=16000) for n in "bc"]
    files = [*files, AudioFile(Path("a"), "a", samples=1, sample_rate=44100)]
    with pytest.warns(UserWarning, match=r"3 audio files are resampled to 24000 Hz .*2 from 16000 Hz, 1 from 44100 Hz"):
        warn_of_resampling(files, 24000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_resampling(files[:2], 16000)


def noise(seconds=1.0, rate=16000, seed=0, peak=0.5):
    """Something like speech: below 3 kHz, loud and soft in turn."""
    rng = np.random.default_rng(seed)
    sound = np.convolve(rng.normal(size=int(seconds * rate)), np.hanning(max(3, rate // 3000)), "same")
    sound *= 1 + np.sin(np.arange(len(sound)) / rate * 20)
    return sound * peak / np.abs(sound).max()


def tone(frequency, rate, seconds=1.0):
    return 0.5 * np.sin(np.arange(int(seconds * rate)) * 2 * np.pi * frequency / rate)


def only(folder, mel=MEL):
    """The one file in the folder as it is kept, with the warnings; or the reason why it is not."""
    (folder / "good.wav").exists() or sf.write(folder / "good.wav", noise(), 16000)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        kept, dropped = check_files(scan_folder(folder), mel=mel)
    said = [str(warning.message) for warning in caught]
    if dropped:
        assert len(said) == 1
        assert "1 of 2 audio files are left out: 1 " in said[0]
        return next(iter(dropped)), None
    return next(file for file in kept if file.name != "good.wav"), said


LEFT_OUT = {
    "channels that cancel out": lambda x: np.stack([x, -x], 1),
    "channels that nearly cancel out": lambda x: np.stack([x, -0.99 * x], 1),
    "three channels that cancel out": lambda x: np.stack([x, -x / 2, -x / 2], 1),
    "a stretch of NaN in one channel": lambda x: np.stack([x, np.where(np.arange(len(x)) // 800 == 3, np.nan, x)], 1),
    "infinities of opposite signs": lambda x: np.stack([x + np.inf, x - np.inf], 1),
    "values beyond 1e18": lambda x: x * 1e18,
    "z-scored and loud": lambda x: x / x.std() * 5.5,
    "16-bit values and not whole": lambda x: x * 32767,
    "nothing but a constant": lambda x: np.full_like(x, 0.3),
    "nothing but a click": lambda x: np.where(np.arange(len(x)) == 5000, 0.9, 0.0),
    "a constant and a click": lambda x: np.where(np.arange(len(x)) == 5000, 0.9, 0.2),
    "all but silent": lambda x: x * 1e-4,
    "a square wave": lambda x: np.sign(x) * 0.7,
    "clipped hard": lambda x: (x * 20).clip(-1, 1),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_recordings_that_cannot_be_meant_are_left_out(tmp_path, kind):
    sf.write(tmp_path / "a.wav", LEFT_OUT[kind](noise()), 16000, subtype="FLOAT")
    reason, _ = only(tmp_path)
    assert isinstance(reason, str)
    words = {"cancel out": "cancel", "nan": "NaN", "infin": "NaN", "values": "full scale", "z-": "full scale"}
    words |= {"16-": "full scale", "constant": "silent", "click": "silent", "silent": "silent"}
    assert next((word for key, word in words.items() if key in kind.lower()), "clipped") in reason


REPAIRED = {
    "whole 16-bit numbers": (lambda x: np.rint(x * 32767), 1 / 2**15, "whole numbers"),
    "whole 24-bit numbers": (lambda x: np.rint(x * 8e6), 1 / 2**23, "whole numbers"),
    "stereo of whole numbers": (lambda x: np.rint(np.stack([x, x[::-1]], 1) * 9000), 1 / 2**15, "whole numbers"),
    "a constant offset": (lambda x: x + 0.2, 1.0, "constant offset"),
    "a negative offset in one channel": (lambda x: np.stack([x, x - 0.3], 1), 1.0, "constant offset"),
    "too loud": (lambda x: x * 4, 0.5, "turned down"),
    "an offset, and then too loud": (lambda x: x * 2 + 1.2, None, "constant offset"),
}


@pytest.mark.parametrize("kind", REPAIRED)
def test_what_is_certain_is_repaired_and_counted(tmp_path, kind):
    distort, gain, name = REPAIRED[kind]
    sound = noise()
    sf.write(tmp_path / "a.wav", distort(sound), 16000, subtype="FLOAT")
    file, said = only(tmp_path)
    assert len(said) == 1
    assert "1 of 2 audio files are repaired: 1 " in said[0]
    assert name in said[0]
    if gain is not None:
        assert file.gain == pytest.approx(gain, rel=1e-6)
    heard = SegmentDataset([file], MEL, 16000 // 256 * 256)[0]["context"][0, MEL.context[0] :][:15000].numpy()
    original = np.atleast_2d(distort(sound).T).mean(0)[:15000]
    assert np.abs(heard).max() <= 1
    assert abs(heard.mean()) < 0.01
    np.testing.assert_allclose(heard, (original - file.offset) * file.gain, atol=1e-5)


TAKEN = {
    "8-bit": ("PCM_U8", lambda x: x),
    "mu-law": ("ULAW", lambda x: x),
    "one silent channel": ("PCM_16", lambda x: np.stack([x, 0 * x], 1)),
    "soft": ("PCM_16", lambda x: x / 500),
    "a few clipped samples": ("PCM_16", lambda x: (2.2 * x).clip(-1, 1)),
    "long silence around": ("PCM_16", lambda x: np.r_[np.zeros(16000 * 20), x, np.zeros(16000 * 20)]),
    "a small offset": ("FLOAT", lambda x: x + 0.005),
    "full scale": ("FLOAT", lambda x: x / np.abs(x).max()),
    "very short": ("PCM_16", lambda x: x[:90]),
}


@pytest.mark.parametrize("kind", TAKEN)
def test_the_rest_is_taken_as_it_is(tmp_path, kind):
    subtype, distort = TAKEN[kind]
    sf.write(tmp_path / "a.wav", distort(noise()), 16000, subtype=subtype)
    file, said = only(tmp_path)
    assert said == []
    assert (file.offset, file.gain) == (0.0, 1.0)


def test_recordings_are_judged_at_the_rate_of_training(tmp_path):
    sf.write(tmp_path / "a.wav", tone(15000, 48000), 48000)  # loud, but not below 8 kHz
    assert only(tmp_path)[0] == "silent"
    assert only(tmp_path, LogMelSpectrogram(48000))[1] == []
    sf.write(tmp_path / "a.wav", np.sign(tone(700, 48000)) * 0.99 * (tone(3, 48000) > 0.49), 48000)
    file, said = only(tmp_path)  # the filter overshoots at the edges
    assert "louder than full scale" in said[0]
    assert file.read(0, file.length(16000), 16000).abs().max() == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("rate", [0, 1, 2000, 1_000_000, 2**31 - 1])
def test_rates_that_cannot_be_meant(tmp_path, rate):
    sf.write(tmp_path / "a.wav", noise(), 16000)
    data = bytearray((tmp_path / "a.wav").read_bytes())
    data[24:28] = struct.pack("<I", rate)
    (tmp_path / "a.wav").write_bytes(data)
    assert only(tmp_path)[0] == ("with a sample rate that cannot be meant" if rate else "unreadable")


@pytest.mark.parametrize("check", ["header", "full"])
def test_a_header_of_two_years_is_not_believed(tmp_path, check):
    sf.write(tmp_path / "good.flac", noise(), 16000)
    data = bytearray((tmp_path / "good.flac").read_bytes())
    data[21] |= 0x0F  # 36 bits: the number of samples
    data[22:26] = b"\xff" * 4
    (tmp_path / "a.flac").write_bytes(data)
    assert sf.info(tmp_path / "a.flac").frames == 2**36 - 1
    with pytest.warns(UserWarning, match="1 truncated"):
        kept, _ = check_files(scan_folder(tmp_path), check)
    assert names(kept) == ["good.flac"]


def test_many_channels_take_little_memory(tmp_path):
    sf.write(tmp_path / "a.wav", np.repeat(noise(0.3)[:, None], 255, 1), 16000)
    assert only(tmp_path)[1] == []


def log_mel(frames=62):
    audio = torch.from_numpy(noise(frames * 256 / 16000).astype(np.float32))
    return MEL(audio[None, None])[0].numpy()


BAD_MELS = {
    "a stretch of NaN": (lambda m: np.where(np.arange(m.shape[1]) == 7, np.nan, m), "not finite"),
    "one infinity": (lambda m: np.where(m == m.max(), np.inf, m), "not finite"),
    "beyond float32": (lambda m: m.astype(np.float64) * 1e300, "not finite"),
    "decibels": (lambda m: m * 20 / np.log(10), "no natural-log"),
    "magnitudes of 16-bit samples": (lambda m: np.exp(m) * 32768, "no natural-log"),
    "NPZ": (None, "unreadable"),
    "objects": (lambda m: m.astype(object), "unreadable"),
    "whole numbers": (lambda m: m.astype(np.int16), "unreadable"),
    "complex": (lambda m: m.astype(complex), "unreadable"),
    "records": (lambda m: m.astype([("x", "f4")]), "unreadable"),
    "text": (lambda m: m.astype("U8"), "unreadable"),
}


@pytest.mark.parametrize("kind", BAD_MELS)
def test_mels_that_cannot_be_meant_are_left_out(tmp_path, kind):
    spoil, reason = BAD_MELS[kind]
    sf.write(tmp_path / "a.wav", noise(), 16000)
    if spoil is None:
        with open(tmp_path / "a.npy", "wb") as file:
            np.savez(file, log_mel())
    else:
        np.save(tmp_path / "a.npy", spoil(log_mel()), allow_pickle=True)
    good = tmp_path / "good.npy"
    np.save(good, log_mel())
    files = [AudioFile(tmp_path / "a.wav", name, mel=mel) for name, mel in (("a", tmp_path / "a.npy"), ("b", good))]
    with pytest.warns(UserWarning, match=f"1 of 2 audio files are left out: 1 with an? .*{reason}"):
        kept, _ = check_files(files, mel=MEL)
    assert names(kept) == ["b"]


@pytest.mark.parametrize("kind", ["f2", "f4", ">f4", "f8", "longdouble"])
def test_any_floats_are_taken(tmp_path, kind):
    sf.write(tmp_path / "a.wav", noise(), 16000)
    np.save(tmp_path / "a.npy", np.asfortranarray(log_mel().astype(kind)))
    files, _ = check_files([AudioFile(tmp_path / "a.wav", "a", mel=tmp_path / "a.npy")], mel=MEL)
    mel = SegmentDataset(files, MEL, 62 * 256)[0]["mel"]
    assert mel.dtype == torch.float32
    assert np.abs(mel.numpy() - log_mel()).max() < 0.02


def test_the_loudest_sound_has_a_mel_that_can_be_meant(tmp_path):
    for name, sound in (("a", np.ones(16000)), ("b", np.sign(tone(440, 16000))), ("c", tone(440, 16000) * 2)):
        sf.write(tmp_path / f"{name}.wav", noise(), 16000)
        np.save(tmp_path / f"{name}.npy", MEL(torch.from_numpy(sound.astype(np.float32))[None, None])[0].numpy())
    files = [AudioFile(tmp_path / f"{n}.wav", n, mel=tmp_path / f"{n}.npy") for n in "abc"]
    assert len(check_files(files, mel=MEL)[0]) == 3
