"""Checkpoints are written whole or not at all, wherever temporary files lie, and are checked when they are read."""

import errno
import gc
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from support.resuming import gan, loader
from support.toy import ToyGAN, quiet_trainer, toy_loader

from univnet.gan.endurance.checkpoint_io import CheckpointError, WholeCheckpointIO
from univnet.gan.endurance.newest import newest_whole

NAMES = ["a b#c.ckpt", "x::y.ckpt", "größe-音.ckpt", "100%.ckpt", "'q\".ckpt", f"{'l' * 200}.ckpt"]


def checkpoint(steps: int = 3, size: int = 1000, **more: Any) -> dict[str, Any]:
    position = {"total_batches": steps, "validation": False, "epoch": 0}
    weights = {"w": torch.arange(size, dtype=torch.float32)}
    return {"global_step": steps, "state_dict": weights, "optimizer_states": [], "gan": {"position": position | more}}


@contextmanager
def started(work: Callable[[Path, Any], None], path: Path) -> Iterator[Any]:
    """Run ``work(path, said)`` in a forked process; yield the process and the other end of ``said``."""
    forked = multiprocessing.get_context("fork")
    heard, said = forked.Pipe(duplex=False)
    process = forked.Process(target=work, args=(path, said))
    process.start()
    said.close()
    try:
        yield process, heard
    finally:
        process.kill()
        process.join(60)


def interrupt_at_every_write(folder: Path, said: Any) -> None:
    left = [0]

    def interrupt(*_: Any) -> None:
        left[0] -= 1
        if left[0] == 0:
            raise KeyboardInterrupt

    for hook in ("write_end_of_file", "write_record"):
        for call in range(1, 4):
            left[0] = call
            writer = type("Writer", (torch._C.PyTorchFileWriter,), {hook: lambda self, *a: interrupt() or 0})
            with mock.patch.object(torch._C, "PyTorchFileWriter", writer):
                try:
                    WholeCheckpointIO().save_checkpoint(checkpoint(9), folder / "last.ckpt")
                except (KeyboardInterrupt, RuntimeError):
                    gc.collect()
    said.send(sorted(path.name for path in folder.iterdir()))


def test_an_interrupt_within_a_writing_aborts_nothing(tmp_path: Path) -> None:
    WholeCheckpointIO().save_checkpoint(checkpoint(7), tmp_path / "last.ckpt")
    with started(interrupt_at_every_write, tmp_path) as (process, said):
        assert said.recv() == ["last.ckpt"]
        process.join(60)
        assert process.exitcode == 0


@pytest.mark.parametrize("name", NAMES)
def test_any_name_in_a_folder_of_any_name(name: str, tmp_path: Path) -> None:
    io, path = WholeCheckpointIO(), tmp_path / "runs::1 #2 ü" / name
    io.save_checkpoint(checkpoint(), path)
    assert torch.equal(io.load_checkpoint(path, weights_only=True)["state_dict"]["w"], checkpoint()["state_dict"]["w"])
    assert [each.name for each in path.parent.iterdir()] == [name]
    io.remove_checkpoint(path)
    assert not list(path.parent.iterdir())


def test_a_gan_trains_with_it_in_a_folder_with_colons(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path / "a::b #1", filename="best", save_top_k=1, enable_version_counter=False)
    trainer = quiet_trainer(tmp_path, enable_checkpointing=True, callbacks=[best], max_epochs=2)
    trainer.fit(ToyGAN(), toy_loader())
    assert isinstance(trainer.strategy.checkpoint_io, WholeCheckpointIO)
    assert torch.load(tmp_path / "a::b #1" / "best.ckpt", weights_only=True)["global_step"] == 20


def test_what_the_user_chose_stays(tmp_path: Path) -> None:
    class Own(TorchCheckpointIO): ...

    trainer = quiet_trainer(tmp_path, plugins=[Own()])
    trainer.fit(ToyGAN(), toy_loader())
    assert type(trainer.strategy.checkpoint_io) is Own


def test_temporary_files_are_beside_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    WholeCheckpointIO().save_checkpoint(checkpoint(), tmp_path / "a.ckpt")
    assert newest_whole(tmp_path.glob("*.ckpt")) == (tmp_path / "a.ckpt", 3)


def save_within_limits(folder: Path, said: Any) -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    data = {"global_step": 9, "state_dict": {"w": torch.zeros(50_000)}, "optimizer_states": []}
    for limit in range(0, 200_000, 9973):
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            WholeCheckpointIO().save_checkpoint(data, folder / "last.ckpt")
            said.send(f"written within {limit}")
        except OSError as error:
            said.send(f"{error.errno} {error}")


def test_no_room_at_any_byte_leaves_the_previous_checkpoint_whole(tmp_path: Path) -> None:
    WholeCheckpointIO().save_checkpoint(checkpoint(7), tmp_path / "last.ckpt")
    before = (tmp_path / "last.ckpt").read_bytes()
    with started(save_within_limits, tmp_path) as (_, said):
        told = [said.recv() for _ in range(21)]
    for line in told:
        assert line == (
            f"{errno.EFBIG} cannot write the checkpoint {tmp_path / 'last.ckpt'} (File too large); "
            f"{tmp_path / 'last.ckpt'}, of update 7, is whole: make room, then go on from there"
        )
    assert (tmp_path / "last.ckpt").read_bytes() == before
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_to_ends_the_run(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    every = ModelCheckpoint(tmp_path / "checkpoints" / "deep", every_n_train_steps=2, save_top_k=-1)
    trainer = quiet_trainer(tmp_path, enable_checkpointing=True, callbacks=[every])
    with pytest.raises(OSError, match=r"cannot write the checkpoint .*holds no other checkpoint") as told:
        trainer.fit(ToyGAN(), toy_loader())
    assert isinstance(told.value, CheckpointError)
    assert told.value.errno in (errno.ENOTDIR, errno.EEXIST)
    assert trainer.global_step == 2


def save_for_ever(path: Path, said: Any) -> None:
    io, step = WholeCheckpointIO(), 0
    while True:
        step += 1
        weights = {"w": torch.full((200_000,), float(step))}
        io.save_checkpoint({"global_step": step, "state_dict": weights, "optimizer_states": []}, path)
        said.send(step)


def test_a_kill_while_writing_leaves_a_whole_file_and_the_next_run_no_leftover(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    with started(save_for_ever, path) as (process, said):
        written = [said.recv() for _ in range(3)]
        until = time.monotonic() + 60
        while not list(tmp_path.glob(".*partial")):
            assert time.monotonic() < until
        process.kill()
    whole = newest_whole([path])
    assert whole is not None
    assert whole.steps >= written[-1]
    left = WholeCheckpointIO()
    left.load_checkpoint(path, weights_only=True)
    assert [each.name for each in tmp_path.iterdir()] == ["last.ckpt"]


def test_every_damaged_byte_is_seen_or_does_no_harm(tmp_path: Path) -> None:
    """Bytes that no checksum covers may change; then what is read is what was written."""
    io, path = WholeCheckpointIO(), tmp_path / "a.ckpt"
    io.save_checkpoint(checkpoint(), path)
    good, draw, seen = path.read_bytes(), random.Random(0), 0
    places = {*draw.sample(range(len(good)), 150), 0, 1, len(good) - 1, *range(len(good) - 22, len(good))}
    for place in sorted(places):
        path.write_bytes(good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :])
        try:
            read = io.load_checkpoint(path, weights_only=True)
        except (ValueError, OSError, RuntimeError):  # the last: torch's own reader
            seen += 1
        else:
            assert torch.equal(read["state_dict"]["w"], checkpoint()["state_dict"]["w"])
    assert seen > 100
    for length in (0, 1, 100, len(good) // 2, len(good) - 1):
        path.write_bytes(good[:length])
        with pytest.raises(ValueError, match="is damaged"):
            io.load_checkpoint(path, weights_only=True)


class TestTheNewestWholeOne:
    def test_is_the_one_with_the_most_updates_and_not_the_last_by_the_clock(self, tmp_path: Path) -> None:
        io = WholeCheckpointIO()
        kinds = {"b": checkpoint(5), "a": checkpoint(7), "c": checkpoint(6), "due": checkpoint(7, validation=True)}
        for age, (name, content) in enumerate(kinds.items()):
            io.save_checkpoint(content, tmp_path / f"{name}.ckpt")
            os.utime(tmp_path / f"{name}.ckpt", (age, age))
        assert newest_whole(tmp_path.glob("*.ckpt")) == (tmp_path / "a.ckpt", 7)

    def test_passes_damaged_ones_over_and_says_so(self, tmp_path: Path) -> None:
        io, told = WholeCheckpointIO(), []
        for steps in (3, 8, 9):
            io.save_checkpoint(checkpoint(steps), tmp_path / f"{steps}.ckpt")
        (tmp_path / "9.ckpt").write_bytes(b"")
        data = bytearray((tmp_path / "8.ckpt").read_bytes())
        data[len(data) // 2] ^= 1  # in the weights: only the checksum tells
        (tmp_path / "8.ckpt").write_bytes(data)
        torch.save({"state_dict": {}, "global_step": 100}, tmp_path / "weights_alone.ckpt")
        answer = newest_whole(tmp_path.glob("*.ckpt"), lambda path, error: told.append(path.name))
        assert answer == (tmp_path / "3.ckpt", 3)
        assert set(told) == {"8.ckpt", "9.ckpt", "weights_alone.ckpt"}

    def test_there_may_be_none(self, tmp_path: Path) -> None:
        assert newest_whole(tmp_path.glob("*.ckpt")) is None


@pytest.mark.parametrize(
    ("lacks", "told"),
    [
        (("gan",), "the generator's counters and window, the discriminator's counters and window, the random numbers"),
        (("optimizer_states",), "lacks the state of both optimizers"),
        (("loops",), "lacks the place in the run"),
        (
            ("optimizer_states", "gan"),
            "lacks the state of both optimizers, the generator's counters and window, the",
        ),
    ],
)
def test_a_checkpoint_without_its_parts_is_not_gone_on_from(lacks: tuple[str, ...], told: str, tmp_path: Path) -> None:
    trainer = quiet_trainer(tmp_path, max_epochs=1)
    trainer.fit(gan(False), loader(0))
    trainer.save_checkpoint(tmp_path / "whole.ckpt")
    content = torch.load(tmp_path / "whole.ckpt", weights_only=True)
    torch.save({part: value for part, value in content.items() if part not in lacks}, tmp_path / "less.ckpt")
    with pytest.raises(ValueError, match=told):
        quiet_trainer(tmp_path, max_epochs=2).fit(gan(False), loader(0), ckpt_path=tmp_path / "less.ckpt")
