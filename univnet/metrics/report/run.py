"""Let every contestant speak every recording, and measure what it said; over several processes."""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import soundfile as sf
import torch
from torch import Tensor

from univnet.data import AudioFile
from univnet.metrics import choose
from univnet.metrics.base import at_rate
from univnet.metrics.report.contestants import Contestant, read_whole

RECORDING = "recording"  # the real speech, as a contestant of the metrics that look at one signal alone


@dataclass(frozen=True)
class Row:
    """What one contestant made of one recording.

    Attributes:
        utterance: the recording's name.
        speaker: its speaker, or "".
        contestant: who spoke.
        seconds: length of what was compared.
        values: of the metrics, by name; NaN where undefined.
        audio: what was compared, a FLAC file at the evaluation's rate.
    """

    utterance: str
    speaker: str
    contestant: str
    seconds: float
    values: dict[str, float]
    audio: Path


@dataclass
class Outcome:
    """All rows, what went wrong by name, and the seconds that each metric took."""

    rows: list[Row] = field(default_factory=list)
    left_out: list[tuple[str, str, str]] = field(default_factory=list)  # contestant, utterance, reason
    costs: dict[str, float] = field(default_factory=dict)  # CPU seconds per second of audio


@dataclass(frozen=True)
class Plan:
    """What is measured, and where audio is put meanwhile.

    Args:
        contestants: who takes part.
        metrics: names of ``univnet.metrics.METRICS``.
        sample_rate: at which recordings and contestants are compared, in Hz.
        folder: for the audio compared.
    """

    contestants: Sequence[Contestant]
    metrics: Sequence[str]
    sample_rate: int
    folder: Path

    def measure(self, number: int, recording: AudioFile) -> Outcome:
        """Return the rows of one recording, the ``number``-th; what is broken is named and left out."""
        outcome = Outcome()
        try:
            real = read_whole(recording.path, self.sample_rate)
        except (OSError, ValueError) as error:
            outcome.left_out.append((RECORDING, recording.name, str(error)))
            return outcome
        alone = [each.name for each in choose(self.metrics) if each.perfect is None]
        self._add(outcome, number, 0, recording, RECORDING, real, real, alone)
        for place, contestant in enumerate(self.contestants, start=1):
            try:
                audio, rate = contestant.speak(recording)
                fake = at_rate(audio, rate, self.sample_rate)
                if not fake.isfinite().all():
                    raise ValueError("made audio that is not finite")
            except (OSError, ValueError) as error:
                outcome.left_out.append((contestant.name, recording.name, str(error)))
                continue
            self._add(outcome, number, place, recording, contestant.name, fake, real, self.metrics)
        return outcome

    def _add(
        self,
        outcome: Outcome,
        number: int,
        place: int,
        recording: AudioFile,
        name: str,
        fake: Tensor,
        real: Tensor,
        metrics: Sequence[str],
    ) -> None:
        values = {}
        for each in choose(metrics):
            began = time.process_time()
            try:
                values[each.name] = each(fake, real, self.sample_rate)
            except Exception as error:  # a metric's package may stumble over odd audio: the others still count
                values[each.name] = float("nan")
                reason = f"{each.name}: {type(error).__name__}: {error}"
                outcome.left_out.append((name, recording.name, reason))
            outcome.costs[each.name] = outcome.costs.get(each.name, 0.0) + time.process_time() - began
        samples = min(len(fake), len(real))
        path = self.folder / f"{number}_{place}.flac"
        sf.write(path, fake[:samples].clamp(-1, 1).numpy(), self.sample_rate, subtype="PCM_16")
        outcome.rows.append(
            Row(recording.name, recording.speaker or "", name, samples / self.sample_rate, values, path)
        )


def run(
    plan: Plan, recordings: Sequence[AudioFile], jobs: int, on_done: Callable[[], object] = lambda: None
) -> Outcome:
    """Measure all ``recordings``.

    Args:
        plan: what to do with each.
        recordings: in the order of the rows.
        jobs: processes; with 1 all happens in this one.
        on_done: called after each recording.

    Returns:
        All outcomes in one, in the order of the recordings.

    Raises:
        concurrent.futures.process.BrokenProcessPool: a process died, for lack of memory perhaps.
    """
    outcomes: dict[int, Outcome] = {}
    for number, outcome in _one_by_one(plan, recordings) if jobs == 1 else _at_once(plan, recordings, jobs):
        outcomes[number] = outcome
        on_done()
    whole = Outcome()
    for _, outcome in sorted(outcomes.items()):
        whole.rows += outcome.rows
        whole.left_out += outcome.left_out
        for name, seconds in outcome.costs.items():
            whole.costs[name] = whole.costs.get(name, 0.0) + seconds
    for name in whole.costs:
        heard = sum(row.seconds for row in whole.rows if name in row.values)
        whole.costs[name] /= heard
    return whole


def _one_by_one(plan: Plan, recordings: Sequence[AudioFile]) -> Iterator[tuple[int, Outcome]]:
    for number, recording in enumerate(recordings):
        yield number, plan.measure(number, recording)


def _at_once(plan: Plan, recordings: Sequence[AudioFile], jobs: int) -> Iterator[tuple[int, Outcome]]:
    # Spawned: a process forked from one with torch's threads can hang.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, len(recordings)), context, _start, (plan,)) as pool:
        numbers: dict[Future[Outcome], int] = {
            pool.submit(_measure, number, recording): number for number, recording in enumerate(recordings)
        }
        try:
            for future in as_completed(numbers):
                yield numbers[future], future.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


_plan: Plan | None = None  # of this process


def _start(plan: Plan) -> None:
    global _plan
    _plan = plan
    torch.set_num_threads(1)


def _measure(number: int, recording: AudioFile) -> Outcome:
    assert _plan is not None
    return _plan.measure(number, recording)
