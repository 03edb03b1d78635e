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
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

from support.enduring import HOOKS, SIGNALS, Blow, Plan, leavings, said, start, start_ranks
from support.state import assert_same

CHAIN = 5  # ends of one run at most
RUNS_PER_PLAN = 6  # the uninterrupted run is made once for so many
WITHIN = [hook for hook in HOOKS if hook not in ("setup", "on_fit_start", "on_train_start", "on_train_end")]


def endure(folder: Path, draw: Random, seconds: float, count: Counter[str], ranks: float = 0.2) -> None:
    """Draw runs until ``seconds`` have passed, and count what was done; a share of them trains on two ranks.

    Raises:
        AssertionError: a run differs, or has exited with another status than the blow's.
        TimeoutError: a run hangs.
    """
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        plan, size = Plan.drawn(draw), 2 if draw.random() < ranks else 1
        if size > 1:  # no windows that can be open
            plan = replace(plan, updates=(1, 1), validate_every=draw.choice([2, 3, 4]))
        whole = folder / f"plan{count['plans']}"
        begun = time.monotonic()
        assert set(start_ranks(whole, plan, ranks=size)) == {0}, said(whole)
        usual, wanted = time.monotonic() - begun, leavings(whole)
        count["plans"] += 1
        for _ in range(RUNS_PER_PLAN):
            if time.monotonic() > until:
                break
            run = folder / f"run{count['runs']}"
            (_one if size == 1 else _one_of_ranks)(run, plan, draw, usual, count)
            compare(run, wanted, plan)
            count["runs"] += 1
            shutil.rmtree(run)
        shutil.rmtree(whole)


def sweep(folder: Path, count: Counter[str]) -> None:
    """Kill one run at the first, second, … call of every hook, and go on with it."""
    plan = Plan(workers=1, elsewhere=True)
    assert start(folder / "whole", plan) == 0, said(folder / "whole")
    wanted = leavings(folder / "whole")
    for hook in HOOKS:
        for call in (1, 2, 5, 9):
            run = folder / f"{hook}{call}"
            if start(run, plan, Blow(signal.SIGKILL, hook, call)):
                count["kills"] += 1
                assert start(run, plan) == 0, said(run)[-3000:]
                compare(run, wanted, plan)
            shutil.rmtree(run)


def compare(run: Path, wanted: dict[str, Any], plan: Plan) -> None:
    """Compare what ``run`` has left with what was ``wanted``."""
    try:
        assert_same(leavings(run), wanted)
    except AssertionError as error:
        raise AssertionError(f"{run} differs at {error}; it was {plan}") from error


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


def _one_of_ranks(run: Path, plan: Plan, draw: Random, usual: float, count: Counter[str]) -> None:
    """One or both ranks get a signal, or one is killed; the other then ends by itself."""
    kills = draw.random() < 0.4
    for _ in range(draw.randint(1, CHAIN)):
        struck = [draw.randrange(2)] if kills or draw.random() < 0.5 else [0, 1]
        what, where, call = signal.SIGKILL if kills else draw.choice(SIGNALS), draw.choice(WITHIN), draw.randint(1, 6)
        statuses = start_ranks(run, plan, {rank: Blow(what, where, call) for rank in struck})
        told = f"{run}: statuses {statuses} after {what} at {where} {call} to {struck}: {said(run)[-2000:]}"
        if kills:
            assert statuses == [0, 0] or statuses[struck[0]] == -what, told
        else:
            passed_on = {-signal.SIGTERM, 128 + signal.SIGTERM}  # by a rank that was validating
            assert set(statuses) <= {0, -what, 128 + what} | passed_on, told + said(run, 1)[-2000:]
        if any(statuses):
            count["kills of a rank" if kills else "signals to ranks"] += 1
    statuses = start_ranks(run, plan)
    assert statuses == [0, 0], f"{run}: statuses {statuses} at last: {said(run)[-3000:]}"


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
        sweep(folder / "sweep", count)
        endure(folder, Random(args.seed), 60 * args.minutes - (time.monotonic() - begun), count)
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
