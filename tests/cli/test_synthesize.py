"""``univnet synthesize``: folders, formats, encodings, streams, and inputs that fail."""

import io
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile as sf
import torch
from safetensors.torch import save_file
from support.checkpoints import save, small_univnet

from univnet import Vocoder
from univnet.cli import main


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(small_univnet(), tmp_path_factory.mktemp("synthesize") / "small.ckpt")


@pytest.fixture(scope="module")
def vocoder(checkpoint: Path) -> Vocoder:
    return Vocoder.from_checkpoint(checkpoint)


@pytest.fixture
def mel(vocoder: Vocoder, speech: Any) -> torch.Tensor:
    return vocoder.mel(torch.from_numpy(speech[20000:60000])[None, None])[0]


@pytest.fixture
def synthesize(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int | None, str, str]]:
    """Run the verb; return its exit status, its output and what it complained of."""

    def run(*argv: Any) -> tuple[int | None, str, str]:
        status: Any = 0
        try:
            main(["synthesize", "--checkpoint", str(checkpoint), "--output", str(tmp_path / "out"), *map(str, argv)])
        except SystemExit as ended:
            status = ended.code
        told = capsys.readouterr()
        return status, told.out, told.err

    return run


def written(tmp_path: Path) -> dict[str, int]:
    out = tmp_path / "out"
    return {path.relative_to(out).as_posix(): sf.info(path).frames for path in out.rglob("*.*")}


def test_a_folder_of_all_kinds_keeps_its_shape(
    synthesize: Callable, tmp_path: Path, mel: torch.Tensor, speech: Any, vocoder: Vocoder
) -> None:
    source = tmp_path / "in"
    (source / "deep").mkdir(parents=True)
    np.save(source / "a.npy", mel.numpy())
    torch.save(mel, source / "b.pt")
    save_file({"mel": mel}, source / "deep" / "c.safetensors")
    sf.write(source / "deep" / "d.flac", speech[20000:60000], 16000)
    (source / "notes.txt").write_text("not audio")
    status, out, _ = synthesize(source, "--encoding", "float")
    assert status == 0
    samples = 40000 // 256 * 256
    assert written(tmp_path) == {name: samples for name in ("a.wav", "b.wav", "deep/c.wav", "deep/d.wav")}
    assert sorted(out.split()) == sorted(str(tmp_path / "out" / name) for name in written(tmp_path))
    for name in ("a.wav", "b.wav", "deep/c.wav"):
        made = torch.from_numpy(sf.read(tmp_path / "out" / name, dtype="float32")[0])
        torch.testing.assert_close(made, vocoder(mel[None])[0, 0], rtol=0, atol=1e-6)


def test_one_bad_file_does_not_end_the_rest(synthesize: Callable, tmp_path: Path, mel: torch.Tensor) -> None:
    for name in ("a", "c"):
        np.save(tmp_path / f"{name}.npy", mel.numpy())
    (tmp_path / "b.npy").write_text("damaged")
    np.save(tmp_path / "d.npy", mel.numpy()[:10])
    status, _, err = synthesize(*(tmp_path / f"{name}.npy" for name in "abcd"))
    assert status == 2
    assert set(written(tmp_path)) == {"a.wav", "c.wav"}
    assert "2 of 4 inputs failed, the others are written" in err
    assert "b.npy is not a readable .npy file of numbers" in err
    assert "d.npy has shape (10, " in err


def test_what_is_there_is_kept_unless_told(synthesize: Callable, tmp_path: Path, mel: torch.Tensor) -> None:
    np.save(tmp_path / "a.npy", mel.numpy())
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.wav").write_text("mine")
    status, _, err = synthesize(tmp_path / "a.npy", tmp_path / "none.npy")
    assert status == 2
    assert "a.wav is there already: give --overwrite" in err
    assert "there is no file" in err
    assert (tmp_path / "out" / "a.wav").read_text() == "mine"
    assert synthesize(tmp_path / "a.npy", "--overwrite", "--format", "wav")[0] == 0
    assert sf.info(tmp_path / "out" / "a.wav").subtype == "PCM_16"


@pytest.mark.parametrize(("form", "encoding", "subtype"), [("flac", "24", "PCM_24"), ("wav", "24", "PCM_24")])
def test_formats_and_encodings(
    form: str, encoding: str, subtype: str, synthesize: Callable, tmp_path: Path, mel: torch.Tensor
) -> None:
    np.save(tmp_path / "a.npy", mel.numpy())
    assert synthesize(tmp_path / "a.npy", "--format", form, "--encoding", encoding)[0] == 0
    assert sf.info(tmp_path / "out" / f"a.{form}").subtype == subtype


def test_a_mel_of_other_software_is_converted(
    synthesize: Callable, tmp_path: Path, mel: torch.Tensor, vocoder: Vocoder
) -> None:
    np.save(tmp_path / "log10.npy", (mel / np.log(10)).T.numpy())
    sizes = "sample_rate=16000,n_mels=20,f_min=0,f_max=8000"
    argv = (tmp_path / "log10.npy", "--encoding", "float", "--mel-format", f"parallel-wavegan,{sizes}")
    expected = vocoder(mel[None])[0, 0, 128:]  # centred frames: half a hop less
    for more in ((), ("--stream", "--overwrite")):
        assert synthesize(*argv, *more)[0] == 0
        made = torch.from_numpy(sf.read(tmp_path / "out" / "log10.wav", dtype="float32")[0])
        torch.testing.assert_close(made, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("stream", [(), ("--stream",)])
def test_a_mel_that_cannot_be_ours_is_named(
    stream: Any, synthesize: Callable, tmp_path: Path, mel: torch.Tensor
) -> None:
    np.save(tmp_path / "db.npy", 20 / np.log(10) * mel.numpy())
    status, _, err = synthesize(tmp_path / "db.npy", *stream)
    assert status == 2
    assert "db.npy cannot be vocoded as it is: its values from" in err
    assert "decibels" in err
    assert "name its format with --mel-format" in err
    assert not written(tmp_path)
    status, _, err = synthesize(tmp_path / "db.npy", "--mel-format", "vocos")
    assert status == 2
    assert "--mel-format vocos does not fit this vocoder: sample_rate is 24000, not 16000; n_mels is 100, not 20" in err


def test_a_long_file_is_streamed(synthesize: Callable, tmp_path: Path, mel: torch.Tensor, vocoder: Vocoder) -> None:
    long = mel.repeat(1, 6)
    np.save(tmp_path / "long.npy", long.numpy())
    assert synthesize(tmp_path / "long.npy", "--stream", "--encoding", "float")[0] == 0
    made = torch.from_numpy(sf.read(tmp_path / "out" / "long.wav", dtype="float32")[0])
    torch.testing.assert_close(made, vocoder(long[None])[0, 0], rtol=0, atol=1e-5)


def test_from_a_pipe_to_a_pipe(checkpoint: Path, mel: torch.Tensor, vocoder: Vocoder) -> None:
    code = "import sys; from univnet.cli import main; main(sys.argv[1:])"
    argv = ["synthesize", "--checkpoint", str(checkpoint), "--stream", "--output", "-", "-"]
    raw = mel.T.contiguous().numpy().astype("<f4").tobytes()
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ran = subprocess.run([sys.executable, "-c", code, *argv], input=raw, capture_output=True, check=True, env=env)
    made = np.frombuffer(ran.stdout, dtype="<i2") / 32767
    np.testing.assert_allclose(made, vocoder(mel[None])[0, 0].numpy(), rtol=0, atol=2e-5)


def test_24_bits_go_through_a_pipe(
    checkpoint: Path, tmp_path: Path, mel: torch.Tensor, vocoder: Vocoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.save(tmp_path / "a.npy", mel.numpy())
    pipe = io.TextIOWrapper(io.BytesIO())
    monkeypatch.setattr(sys, "stdout", pipe)
    argv = ["--stream", "--output", "-", "--encoding", "24", str(tmp_path / "a.npy")]
    main(["synthesize", "--checkpoint", str(checkpoint), *argv])
    raw = np.frombuffer(pipe.buffer.getvalue(), dtype=np.uint8).reshape(-1, 3)  # type: ignore[attr-defined]
    made = np.pad(raw, ((0, 0), (1, 0))).view("<i4")[:, 0] / 2.0**31
    np.testing.assert_allclose(made, vocoder(mel[None])[0, 0].numpy(), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["-"], "reading from a pipe needs --stream"),
        (["--format", "flac", "--encoding", "float", "-"], "FLAC has no floating-point samples"),
        (["--mel-format", "hifi", "x.npy"], "there is no mel format 'hifi'"),
    ],
)
def test_mistakes(argv: list[str], told: str, synthesize: Callable) -> None:
    status, _, err = synthesize(*argv)
    assert status == 2
    assert told in err
    assert len(err.splitlines()) == 1


def test_an_empty_folder_is_told(synthesize: Callable, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    status, _, err = synthesize(tmp_path / "empty")
    assert status == 2
    assert "holds no recording and no mel (.aif, .aifc, .aiff, .au, .caf, .flac, .mp3, .npy, " in err
