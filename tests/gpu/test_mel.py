"""The mel-spectrogram is the same wherever it is computed, and stays usable where its module is."""

import copy

import torch

from univnet import AudioDataModule, LogMelSpectrogram


def noise(*shape: int) -> torch.Tensor:
    return 0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_devices_agree(device: torch.device) -> None:
    mel, audio = LogMelSpectrogram(), noise(2, 1, 24000)
    expected = mel.double()(audio.double()).float()
    torch.testing.assert_close(mel.float().to(device)(audio.to(device)).cpu(), expected, atol=1e-3, rtol=0)


def test_audio_on_another_device_leaves_the_module_where_it_is(device: torch.device) -> None:
    mel, audio = LogMelSpectrogram(), noise(1, 1, 4096)
    assert mel(audio.to(device)).device.type == device.type
    assert mel.filters.device.type == "cpu"
    torch.testing.assert_close(mel(audio.to(device)).cpu(), copy.deepcopy(mel)(audio), atol=1e-3, rtol=0)


def test_mels_of_a_batch_are_computed_where_it_is(device: torch.device) -> None:
    data = AudioDataModule("anywhere", mel=LogMelSpectrogram())
    batch = data.on_after_batch_transfer({"context": noise(2, 1, 2048 + 768).to(device)}, 0)
    assert batch["mel"].device.type == batch["audio"].device.type == device.type
    assert batch["mel"].shape == (2, 100, 8)
    assert data.mel.filters.device.type == "cpu"
