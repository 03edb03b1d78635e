"""Mels of other software to fine-tune on: converted, aligned with their audio, or refused with the likely format."""

import csv
import re
from pathlib import Path
from typing import Any

import librosa
import numpy as np
import pytest
import torch
import yaml
from support.small import write_config

from univnet.audio import LogMelSpectrogram, MelFormat, read_segment, write_audio
from univnet.cli import main
from univnet.data import AudioDataModule

MEL = LogMelSpectrogram(16000, n_mels=80)
CENTRED = "parallel-wavegan,sample_rate=16000,f_min=0,f_max=8000"  # log10, frames first


def librosas(audio: np.ndarray) -> np.ndarray:
    """Return a centred mel of magnitudes, which we have not made."""
    return librosa.feature.melspectrogram(
        y=audio.astype(np.float64), sr=16000, n_fft=1024, hop_length=256, n_mels=80, power=1, pad_mode="reflect"
    )


def listed(folder: Path, demo: Path, written: Any, count: int = 3) -> Path:
    """Write a manifest of real recordings with their mels."""
    rows = [("path", "mel")]
    for path in sorted(demo.glob("*.flac"))[:count]:
        audio = read_segment(path, 0, 16000 * 3, 16000)[0].numpy()
        np.save(folder / f"{path.stem}.npy", written(librosas(audio)).astype(np.float32))
        write_audio(folder / f"{path.stem}.wav", torch.from_numpy(audio)[None], 16000)
        rows.append((f"{path.stem}.wav", f"{path.stem}.npy"))
    with (folder / "list.csv").open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "list.csv"


def data(manifest: Path, **options: Any) -> AudioDataModule:
    options = {"segment_length": 8192, "batch_size": 4, "num_workers": 0, "validation": 1} | options
    return AudioDataModule(manifest=str(manifest), mel=MEL, **options)


def log10(mel: np.ndarray) -> np.ndarray:
    return np.log10(np.maximum(mel, 1e-10)).T


def distance(given: torch.Tensor, own: torch.Tensor) -> float:
    """Return how far the mels are apart on average, where something is heard."""
    heard = own > -8
    assert heard.float().mean() > 0.1
    return float((given - own).abs()[heard].mean())


@pytest.mark.parametrize("form", [CENTRED, MelFormat.named(CENTRED)], ids=["by name", "as an object"])
def test_crops_of_centred_mels_are_aligned_with_their_audio(tmp_path: Path, demo: Path, form: Any) -> None:
    """Against the audio's own mel: equal at the very place, and far from it half a hop away."""
    module = data(listed(tmp_path, demo, log10), mel_format=form)
    module.setup()
    assert module.train_dataset is not None
    left, right = MEL.context
    for draw in range(40):
        item = module.train_dataset[draw]
        context, given = item["context"][None], item["mel"]
        own = MEL.frames_of(context)[0]
        inner = slice(3, -3)  # at a recording's end the two pad in their own ways
        assert distance(given[:, inner], own[:, inner]) < 1e-3
        shifted = MEL.frames_of(context[..., 128 : 128 - right + left + 8192])[0]
        assert distance(given[:, 3 : shifted.shape[1] - 3], shifted[:, inner]) > 0.05
    batch = module.on_after_batch_transfer(next(iter(module.train_dataloader())), 0)
    assert batch["audio"].shape == (4, 1, 8192)
    assert batch["mel"].shape == (4, 80, 32)
    for item in module.validation_dataset or ():
        assert item["audio"].shape[1] == item["mel"].shape[1] * 256
        assert distance(item["mel"][:, 2:-3], MEL(item["audio"][None])[0, :, 2:-3]) < 1e-3
        assert torch.equal(item["audio"][0, :128], item["audio"][0, 129:257].flip(0))


def test_a_recording_shorter_than_a_segment_ends_with_its_mel(tmp_path: Path, demo: Path) -> None:
    module = data(listed(tmp_path, demo, log10, 2), mel_format=CENTRED, segment_length=256 * 200, validation=0)
    module.setup()
    assert module.train_dataset is not None
    item, left = module.train_dataset[0], MEL.context[0]
    frames = 3 * 16000 // 256
    assert (item["mel"][:, frames:] == np.float32(np.log(1e-5))).all()
    audio = item["context"][0, left : left + 256 * 200]
    assert audio[: frames * 256].any()
    assert not audio[frames * 256 :].any()
    assert distance(item["mel"][:, 2 : frames - 3], MEL.frames_of(item["context"][None])[0, :, 2 : frames - 3]) < 1e-3


@pytest.mark.parametrize("check", ["full", "header"])
@pytest.mark.parametrize(
    ("written", "told"),
    [
        (lambda m: librosa.power_to_db(m**2), "decibels ('librosa-power-db', 'librosa-db')"),
        (lambda m: np.log(np.maximum(m**2, 1e-20)), "decibels|logarithms of powers"),
        (lambda m: (librosa.power_to_db(m**2, ref=np.max) + 80) / 80, "normalized to [0, 1]"),
        (lambda m: (librosa.power_to_db(m**2, ref=np.max) + 80) / 40 - 1, "normalized to [-1, 1]"),
        (lambda m: m, "magnitudes of which no logarithm was taken"),
    ],
)
def test_mels_that_cannot_be_ours_are_named_with_the_likely_format(
    tmp_path: Path, demo: Path, written: Any, told: str, check: Any
) -> None:
    with pytest.raises(ValueError, match="|".join(map(re.escape, told.split("|")))):
        data(listed(tmp_path, demo, written), check=check).setup()


def test_one_strange_mel_among_many_is_no_reason(tmp_path: Path, demo: Path) -> None:
    manifest = listed(tmp_path, demo, lambda m: np.log(np.maximum(m, 1e-5)))
    np.save(min(tmp_path.glob("*.npy")), np.full((80, 188), -0.5, np.float32))
    data(manifest).setup()


def test_a_format_that_the_values_do_not_keep_to_is_told(tmp_path: Path, demo: Path) -> None:
    manifest = listed(tmp_path, demo, lambda m: librosa.amplitude_to_db(m, top_db=None).T)
    with pytest.raises(ValueError, match="with a mel of values that no mel of the format parallel-wavegan can have"):
        data(manifest, mel_format=CENTRED).setup()
    data(manifest, mel_format=f"{CENTRED},log=db").setup()


def test_what_does_not_fit_is_told_with_all_that_differs(tmp_path: Path, demo: Path) -> None:
    manifest = listed(tmp_path, demo, log10)
    both = r"batch_size must be at least 1.*mel_format hifigan does not fit the mel"
    with pytest.raises(ValueError, match=both) as no:
        data(manifest, mel_format="hifigan", batch_size=0)
    assert "sample_rate is 22050, not 16000" in str(no.value)
    with pytest.raises(ValueError, match="mel_format: there is no mel format 'hifi'"):
        data(manifest, mel_format="hifi")
    with pytest.raises(ValueError, match=r"has the shape \(188, 80\), but .* needs \(80, 187\).*: transpose it"):
        data(manifest).setup()
    turned = listed(tmp_path, demo, lambda m: log10(m).T)
    with pytest.raises(ValueError, match=r"has the shape \(80, 188\), but .* needs \(187, 80\).*: transpose it"):
        data(turned, mel_format=CENTRED).setup()
    with pytest.raises(ValueError, match=r"data\.mel_format=parallel-wavegan says .* but no recording names one"):
        data(demo / "manifest.tsv", mel_format=CENTRED).setup()


def test_the_command_line_and_yaml_take_a_format(
    tmp_path: Path, demo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, 0, demo)
    content = yaml.safe_load(config.read_text())
    manifest = listed(tmp_path, demo, log10, 4)
    content["data"] |= {"root": None, "manifest": str(manifest), "mel_format": f"{CENTRED},n_mels=80", "validation": 1}
    content["model"]["mel"]["init_args"]["n_mels"] = content["model"]["generator"]["init_args"]["n_mels"] = 80
    config.write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(config)])
    [saved] = tmp_path.glob("runs/small/version_0/config.yaml")
    assert yaml.safe_load(saved.read_text())["data"]["mel_format"] == f"{CENTRED},n_mels=80"
    with pytest.raises(SystemExit) as ended:
        main(["fit", "--config", str(config), "--data.mel_format", "vocos"])
    assert ended.value.code == 2
    assert "mel_format vocos does not fit the mel in use" in capsys.readouterr().err
    asked = {**MelFormat.named(CENTRED).__dict__}
    content["data"]["mel_format"] = {name: value for name, value in asked.items() if name != "source"}
    config.write_text(yaml.safe_dump(content))
    main(["fit", "--config", str(config)])
