"""Runs of the command line, and what they leave in their folders."""

import sys
from pathlib import Path
from typing import Any

import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

TRAIN = [sys.executable, str(Path(__file__).parents[2] / "scripts" / "train.py")]
CLIPS = 8  # of which 2 are held out: 6 micro-batches per epoch
ACCUMULATE = ["--model.generator_updates.accumulate", "2"]


def events(folder: Path) -> EventAccumulator:
    read = EventAccumulator(str(folder), size_guidance={"scalars": 0, "audio": 0, "images": 0})
    return read.Reload()


def steps(read: EventAccumulator, tag: str) -> list[int]:
    return [event.step for event in read.Scalars(tag)]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, weights_only=True)
