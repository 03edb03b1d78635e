"""The benchmark's contestants do the same work, and its figures are what they say; no test asserts a time."""

import argparse
import functools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from support import PROGRAMS
from support.small import small_univnet

from univnet import Generator, UnivNet
from univnet.benchmarks import contests, measure, plain
from univnet.benchmarks.comparison import WITHOUT_TRANSFORMERS
from univnet.cli.benchmark import run
from univnet.cli.messages import UsageError
from univnet.models import lvc


def small() -> UnivNet:
    return small_univnet().double()


def test_the_plain_networks_are_ours() -> None:
    module, mel, noise = small(), torch.randn(2, 20, 8).double(), torch.randn(2, 4, 8).double()
    fake = module.generator(mel, noise)
    torch.testing.assert_close(plain.generate(module.generator, mel, noise), fake, rtol=0, atol=1e-12)
    ours, theirs = module.discriminator(fake), plain.judge(module.discriminator, fake)
    assert list(ours) == list(theirs)
    for name in ours:
        torch.testing.assert_close(theirs[name], ours[name], rtol=0, atol=1e-12)


def test_the_plain_step_moves_both_players_as_plain_gradients_say() -> None:
    module, twin = small(), small()
    batch = {"audio": 0.1 * torch.randn(2, 1, 2048).double(), "mel": torch.randn(2, 20, 8).double()}
    noise = torch.randn(2, 4, 8).double()
    players = (module.generator, module.discriminator)
    plain.step(module, batch, noise, tuple(torch.optim.SGD(player.parameters(), lr=0.1) for player in players))
    fake = twin.generator(batch["mel"], noise)
    loss = twin.generator_loss(batch, fake)["loss"]
    steps = torch.autograd.grad(loss, list(twin.generator.parameters()))
    for moved, start, gradient in zip(module.generator.parameters(), twin.generator.parameters(), steps, strict=True):
        torch.testing.assert_close(moved, start - 0.1 * gradient, rtol=0, atol=1e-10)
    loss = twin.discriminator_loss(batch, fake.detach())["loss"]
    steps = torch.autograd.grad(loss, list(twin.discriminator.parameters()))
    for player, start, gradient in zip(players[1].parameters(), twin.discriminator.parameters(), steps, strict=True):
        torch.testing.assert_close(player, start - 0.1 * gradient, rtol=0, atol=1e-10)


def test_flops_are_counted_of_shapes() -> None:
    a, b = torch.empty(3, 5, device="meta"), torch.empty(5, 7, device="meta")
    assert measure.flops(lambda: a @ b) == 2 * 3 * 5 * 7
    x, kernel, bias = torch.randn(2, 3, 40), torch.randn(2, 3, 4, 3, 5), torch.randn(2, 4, 5)
    convolve = lvc.location_variable_convolution  # each of 40 samples: 3 · 3 products for 4 outputs
    assert measure.flops(lambda: convolve(x, kernel, bias, 8)) == 2 * 2 * 40 * 9 * 4
    weight = torch.randn(6, 3, 5, requires_grad=True)  # 2 examples, 36 places, 6 · 3 · 5 products
    assert measure.flops(lambda: torch.conv1d(x, weight).sum().backward()) == 2 * (2 * 2 * 36 * 6 * 3 * 5)
    with torch.inference_mode():
        assert measure.flops(lambda: torch.conv1d(x, weight)) == 2 * 2 * 36 * 6 * 3 * 5


def test_contestants_take_turns() -> None:
    turns: list[str] = []
    seconds = measure.alternate({"a": lambda: turns.append("a"), "b": lambda: turns.append("b")}, 2, "cpu")
    assert turns == ["a", "b"] * 3
    assert [len(s) for s in seconds.values()] == [2, 2]
    assert measure.summary([3.0, 1.0, 2.0]) == {"median_s": 2.0, "min_s": 1.0, "max_s": 3.0}


def test_peak_memory_sees_what_is_held_and_let_go() -> None:
    # In a process that has done nothing else: memory that other tests freed could be used again unseen.
    said = subprocess.check_output([sys.executable, PROGRAMS / "peak_run.py"], text=True, timeout=100)
    measured = json.loads(said)
    if measured is not None:
        peak, stays = measured
        assert peak == pytest.approx(2**28, rel=0.1)
        assert stays == pytest.approx(2**27, rel=0.1)


def test_a_table_and_json(tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contests, "has_transformers", lambda: False)
    output = tmp_path / "infer.json"
    run(["infer", "--size", "c16", "--seconds", "0.2", "--repeats", "2", "--no-memory", "--output", str(output)])
    said, report = capsys.readouterr().out, json.loads(output.read_text())
    [row] = report["rows"]
    assert (row["case"], row["contestant"], len(row["seconds"])) == ("0.2 s", "ours", 2)
    assert row["flops"] > 1e8
    assert report["peak_flops_per_s"]["convolution"] > 0
    assert "0.2 s" in said
    assert WITHOUT_TRANSFORMERS in said


def test_exported_graphs_run_against_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: dict[str, Any] = {"strides": (16, 16), "dilations": (3,), "predictor_channels": 8, "predictor_blocks": 1}
    monkeypatch.setattr(contests, "Generator", functools.partial(Generator, noise_channels=8, **sizes))
    monkeypatch.setitem(contests.CHANNELS, "c16", 4)
    output = tmp_path / "infer.json"
    argv = ["infer", "--size", "c16", "--seconds", "0.2", "0.3", "--backends", "torch-export", "onnx"]
    run([*argv, "--repeats", "1", "--no-memory", "--output", str(output)])
    rows = [(row["case"], row["contestant"], "flops" in row) for row in json.loads(output.read_text())["rows"]]
    each = [("ours", True), ("torch-export", False), ("onnx", False)]
    assert rows == [(case, *rest) for case in ("0.2 s", "0.3 s") for rest in each]
    options = argparse.Namespace(
        backends=["onnx", "torch-export"],
        memory_of=None,
        size="c16",
        seconds=[0.2],
        batch=2,
        device="cpu",
        precision="32",
    )
    [make] = contests.infer(options).values()
    contestants = make()
    expected: Any = contestants["ours"]()
    for name in options.backends:
        torch.testing.assert_close(torch.as_tensor(contestants[name]()), expected, rtol=0, atol=1e-4)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    for argv, message in (
        (["infer", "--device", "nowhere"], "--device nowhere cannot be used here"),
        (["lvc", "--segment", "100"], "--segment must be a multiple of 256 samples, got 100"),
        (["lvc", "--output", str(tmp_path / "no" / "file.json")], "there is no folder"),
        (["fast"], "invalid choice: 'fast'"),
        (["lvc", "--backends", "onnx"], "--backends is for infer on the CPU in float32"),
        (["infer", "--backends", "tflite"], "invalid choice: 'tflite'"),
        (["train", "--batch", "0"], "must be at least 1, got 0"),
    ):
        with pytest.raises(UsageError, match=message):
            run(argv)
