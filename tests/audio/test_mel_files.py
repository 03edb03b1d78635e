"""Mels in files and pipes: read as numbers, never as code."""

import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from support.hostile import hostile_file, hostile_pickle

from univnet.audio.mel_files import frames_of_pipe, open_mel

MEL = torch.arange(12.0).reshape(3, 4)


@pytest.mark.parametrize("shape", [(3, 4), (1, 3, 4)])
@pytest.mark.parametrize("kind", ["npy", "big.npy", "pt", "safetensors", "named.safetensors"])
def test_each_kind_is_read(kind: str, shape: Any, tmp_path: Path) -> None:
    path, mel = tmp_path / f"x.{kind}", MEL.reshape(shape)
    if kind.endswith("npy"):
        np.save(path, mel.numpy().astype(">f8" if kind == "big.npy" else "<f4"))
    elif kind == "pt":
        torch.save(mel, path)
    else:
        save_file({"mel": mel, **({"other": mel + 1} if "named" in kind else {})}, path)
    read = open_mel(path)
    assert read.shape == (3, 4)
    assert torch.equal(read.float(), MEL)


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("a.npy", b"no numbers", "is not a readable .npy file"),
        ("a.pt", b"no numbers", "is damaged|holds more than a tensor"),
        ("a.safetensors", b"no numbers", "is damaged or no safetensors file"),
    ],
)
def test_damaged_files_are_told(name: str, content: bytes, told: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=told):
        open_mel(tmp_path / name)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        open_mel(tmp_path / f"other-{name}")


@pytest.mark.parametrize("name", ["a.npy", "a.pt", "a.safetensors"])
@pytest.mark.parametrize("write", [lambda path: hostile_file(path, {}), hostile_pickle])
def test_hostile_files_run_nothing(name: str, write: Any, tmp_path: Path) -> None:
    ran = write(tmp_path / name)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        open_mel(tmp_path / name)
    assert not ran.exists()


def test_other_content_is_told(tmp_path: Path) -> None:
    torch.save({"mel": MEL}, tmp_path / "dict.pt")
    with pytest.raises(ValueError, match="holds no tensor: save the mel alone"):
        open_mel(tmp_path / "dict.pt")
    torch.save(MEL.long(), tmp_path / "whole.pt")
    with pytest.raises(ValueError, match="does not hold floating-point numbers"):
        open_mel(tmp_path / "whole.pt")
    save_file({"a": MEL, "b": MEL + 1}, tmp_path / "two.safetensors")
    with pytest.raises(ValueError, match="holds the tensors a, b: name one of them mel"):
        open_mel(tmp_path / "two.safetensors")


@pytest.mark.parametrize("most", [1, 3, 100])
@pytest.mark.parametrize("size", [5, 12, 1000])
def test_frames_come_out_of_a_pipe_as_they_come(most: int, size: int) -> None:
    raw = MEL.T.contiguous().numpy().astype("<f4").tobytes()
    out, into = os.pipe()

    def write() -> None:
        with os.fdopen(into, "wb", buffering=0) as pipe:
            for start in range(0, len(raw), size):
                pipe.write(raw[start : start + size])

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(out, "rb") as pipe:
        pieces = list(frames_of_pipe(pipe, 3, most))
    writer.join()
    assert torch.equal(torch.cat(pieces, dim=1), MEL)
    assert max(piece.shape[1] for piece in pieces) <= most


def test_a_pipe_that_ends_within_a_frame_is_told(tmp_path: Path) -> None:
    (tmp_path / "raw").write_bytes(b"\0" * 14)
    with (tmp_path / "raw").open("rb") as pipe, pytest.raises(ValueError, match="ends within a frame: 2 bytes of 12"):
        list(frames_of_pipe(pipe, 3, 10))
