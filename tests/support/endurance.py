"""Kill and stop small training runs at random, go on with them, compare: ``python -m support.endurance --minutes 60``.

Every run is drawn from a seed: what is trained, and up to five ends, each at a hook, at a file event, or at an instant.
It prints what it did and ends with status 1 at the first run that hangs, exits otherwise than it should, or leaves
anything behind that differs from what the uninterrupted run leaves; its folder is then kept.
"""

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

from support.enduring import SIGNALS, Blow, Plan, leavings, said, start
from support.state import assert_same

CHAIN = 5  # ends of one run at most
RUNS_PER_PLAN = 6  # the uninterrupted run is made once for so many


def endure(folder: Path, draw: Random, seconds: float, count: Counter[str]) -> None:
    """Draw runs until ``seconds`` have passed, and count what was done.

    Raises:
        AssertionError: a run differs, or has exited with another status than the blow's.
        TimeoutError: a run hangs.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        plan = Plan.drawn(draw)
        whole = folder / f"plan{count['plans']}"
        begun = time.monotonic()
        assert start(whole, plan) == 0, said(whole)
        usual, wanted = time.monotonic() - begun, leavings(whole)
        count["plans"] += 1
        for _ in range(RUNS_PER_PLAN):
            if time.monotonic() > until:
                break
            run = folder / f"run{count['runs']}"
            _one(run, plan, draw, usual, count)
            try:
                assert_same(leavings(run), wanted)
            except AssertionError as error:
                raise AssertionError(f"{run} differs from {whole} at {error}; it was {plan}") from error
            count["runs"] += 1
            shutil.rmtree(run)
        shutil.rmtree(whole)


def _one(run: Path, plan: Plan, draw: Random, usual: float, count: Counter[str]) -> None:
    kills = draw.random() < 0.6
    for _ in range(draw.randint(1, CHAIN)):
        blow = Blow.drawn(draw, usual, (signal.SIGKILL,) if kills else SIGNALS)
        status = start(run, plan, blow)
        right = (0, -blow.what) if kills else (0, -blow.what, 128 + blow.what)
        assert status in right, f"{run}: status {status} after {blow}: {said(run)[-3000:]}"
        if status:
            count["kills" if kills else "signals"] += 1
            count[f"at {'an instant' if blow.where == 'time' else blow.where}"] += 1
    status = start(run, plan)
    assert status == 0, f"{run}: status {status} at last: {said(run)[-3000:]}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, help="where runs are kept while they last (default: a temporary one)")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="endurance-"))
    count: Counter[str] = Counter()
    begun = time.monotonic()
    print(f"seed {args.seed}, in {folder}, {os.cpu_count()} cores", flush=True)
    try:
        endure(folder, Random(args.seed), 60 * args.minutes, count)
    finally:
        minutes = (time.monotonic() - begun) / 60
        print(f"{minutes:.1f} minutes: " + ", ".join(f"{number} {what}" for what, number in count.most_common()))
    shutil.rmtree(folder, ignore_errors=True)
    print("every run left what the uninterrupted one left, bit for bit; none hung")


if __name__ == "__main__":
    try:
        main()
    except (AssertionError, TimeoutError) as error:
        sys.exit(f"endurance: {error}")
