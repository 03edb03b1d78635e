"""What is computed at full precision is so, whatever the process is set to, and the setting is put back."""

import threading
from collections.abc import Iterator

import pytest
import torch
from support.small import MEL, small_univnet

from univnet import LogMelSpectrogram, Vocoder
from univnet.common import precision
from univnet.common.precision import full_precision

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.fixture(params=["highest", "high", "medium"])
def chosen(request: pytest.FixtureRequest) -> Iterator[str]:
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(request.param)
    yield request.param
    assert torch.get_float32_matmul_precision() == request.param
    torch.set_float32_matmul_precision(before)


def test_mels_and_audio_do_not_depend_on_the_choice(chosen: str) -> None:
    torch.manual_seed(0)
    audio = 0.1 * torch.randn(1, 1, 8192)
    mel, module = LogMelSpectrogram(**MEL), small_univnet()
    vocoder = Vocoder(module.generator, module.mel)
    with torch.backends.mkldnn.flags(enabled=True):
        frames = mel(audio)
        made, streamed = vocoder(frames), torch.cat(list(vocoder.stream(frames.split(7, 2))), 2)
    torch.set_float32_matmul_precision("highest")
    assert torch.equal(frames, mel(audio))
    assert torch.equal(made, vocoder(frames))
    torch.testing.assert_close(streamed, made, atol=1e-5, rtol=0)
    torch.set_float32_matmul_precision(chosen)


@pytest.mark.parametrize("device", [CPU, CUDA])
def test_the_setting_is_put_back_by_the_last_to_leave(device: torch.device, chosen: str) -> None:
    owner = precision._SETTINGS[device.type]._owner
    before, inside = owner.fp32_precision, threading.Event()
    leave = threading.Event()

    def other() -> None:
        with full_precision(device):
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=other)
    with full_precision(device):
        thread.start()
        assert inside.wait(10)
    assert owner.fp32_precision in ("none", "ieee")  # the other thread is still in it
    leave.set()
    thread.join()
    assert owner.fp32_precision == before
    with pytest.raises(KeyError), full_precision(device):
        raise KeyError
    assert owner.fp32_precision == before


def test_torchs_older_setting(chosen: str) -> None:
    setting = precision._Setting(precision._OneForAll())
    setting.enter()
    assert torch.get_float32_matmul_precision() == "highest"
    setting.leave()
    assert torch.get_float32_matmul_precision() == chosen


def test_other_devices_have_no_such_setting() -> None:
    with full_precision(torch.device("meta")):
        assert torch.ones(1, device="meta").device.type == "meta"
