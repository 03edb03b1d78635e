"""Damaged files: seeded changes of good ones. ``UNIVNET_MUTATIONS`` is how many, 350 by default."""

import os
import struct

import numpy as np

COUNT = int(os.environ.get("UNIVNET_MUTATIONS", "350"))
EXTREMES = [struct.pack("<I", value) for value in (0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)] + [b"\xff" * 8, b"\0" * 8]


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One to four changes: bytes flipped, cut, repeated, moved, or made extreme, most of them where headers are."""
    changed = bytearray(data)
    for _ in range(rng.integers(1, 5)):
        end = min(len(changed), 100) if rng.random() < 0.7 else len(changed)
        place = int(rng.integers(max(1, end)))
        match rng.integers(6):
            case 0:
                changed[place : place + 1] = rng.bytes(1)
            case 1:
                extreme = EXTREMES[rng.integers(len(EXTREMES))]
                changed[place : place + len(extreme)] = extreme
            case 2:
                del changed[place:]
            case 3:
                del changed[place : place + int(rng.integers(1, 200))]
            case 4:
                other = int(rng.integers(max(1, len(changed))))
                changed[place:place] = changed[other : other + int(rng.integers(1, 200))]
            case 5:
                changed[place : place + 200] = rng.bytes(200)
    return bytes(changed)
