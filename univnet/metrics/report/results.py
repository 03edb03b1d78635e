"""What an evaluation found, as text, CSV and JSON."""

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

from univnet.metrics.base import Measure
from univnet.metrics.report.run import RECORDING, Outcome, Row
from univnet.metrics.report.statistics import (
    FEW,
    INTERVALS,
    LEVEL,
    RESAMPLES,
    Estimate,
    Estimates,
    by_speaker,
    differences,
    summarize,
)

NOTHING = "\N{EN DASH}"  # in tables, where there is no value


@dataclass(frozen=True)
class Results:
    """An evaluation's outcome and what follows from it.

    Args:
        outcome: all rows.
        contestants: names, in the order of tables; the recording comes first by itself.
        measures: the metrics that were computed.
        missing: why others were not.
        sample_rate: at which audio was compared, in Hz.
        broken: recordings that were left out from the start, with the reasons.
    """

    outcome: Outcome
    contestants: Sequence[str]
    measures: Sequence[Measure]
    missing: Sequence[str]
    sample_rate: int
    broken: Sequence[tuple[str, str]] = ()

    @property
    def rows(self) -> list[Row]:
        """What was measured: a row per contestant and utterance."""
        return self.outcome.rows

    @property
    def metrics(self) -> list[str]:
        """The metrics' names."""
        return [each.name for each in self.measures]

    @property
    def names(self) -> list[str]:
        """The contestants' names, the recording's first."""
        return [RECORDING, *self.contestants]

    @cached_property
    def utterances(self) -> list[str]:
        """Names of the recordings that were measured."""
        return list(dict.fromkeys(row.utterance for row in self.rows))

    @cached_property
    def by_place(self) -> dict[tuple[str, str], Row]:
        """The rows by utterance and contestant."""
        return {(row.utterance, row.contestant): row for row in self.rows}

    @cached_property
    def summary(self) -> dict[str, Estimates]:
        """Every contestant's estimates."""
        return summarize(self.rows, self.names, self.metrics)

    @cached_property
    def speakers(self) -> dict[str, dict[str, Estimates]]:
        """Every speaker's summary."""
        return by_speaker(self.rows, self.names, self.metrics)

    @cached_property
    def differences(self) -> dict[tuple[str, str], Estimates]:
        """Paired differences of every two contestants."""
        return differences(self.rows, self.contestants, self.metrics)

    @property
    def ranking(self) -> Measure:
        """The metric by which utterances are ordered: PESQ, or the first that looks at the recording."""
        compared = [each for each in self.measures if each.perfect is not None] or list(self.measures)
        return next((each for each in compared if each.name == "pesq"), compared[0])

    @cached_property
    def worst_first(self) -> list[str]:
        """The utterances, those first that the first contestant does worst; those that it lacks last."""
        sign = 1 if self.ranking.better == "higher" else -1

        def badness(utterance: str) -> float:
            row = self.by_place.get((utterance, self.contestants[0]))
            value = row.values[self.ranking.name] if row else math.nan
            return math.inf if math.isnan(value) else sign * value

        return sorted(self.utterances, key=badness)


def shown(estimate: Estimate | None, measure: Measure, whole: int | None = None) -> str:
    """Return a mean and half its interval's width, as ``1.234 ± 0.056``, and the count where it is not ``whole``."""
    if estimate is None:
        return NOTHING
    half = max(estimate.high - estimate.mean, estimate.mean - estimate.low)
    count = f" ({estimate.count})" if whole not in (None, estimate.count) else ""
    return f"{estimate.mean:.{measure.digits}f} ± {half:.{measure.digits}f}{count}"


def text(results: Results) -> str:
    """Return the tables that a terminal shows: all utterances, every speaker, and what was left out."""
    parts = [_table(results, results.summary, len(results.utterances))]
    if len(results.speakers) > 1:
        for speaker, summary in results.speakers.items():
            count = len({row.utterance for row in results.rows if row.speaker == speaker})
            parts.append(f"speaker {speaker}, {count} utterances\n{_table(results, summary, count)}")
    parts.append(
        f"{len(results.utterances)} utterances at {results.sample_rate} Hz; ± is the wider half of the interval, in "
        f"parentheses are the utterances with a value where not all have one; {INTERVALS}"
    )
    return "\n\n".join([*parts, *notes(results)])


def notes(results: Results) -> list[str]:
    """Return which metrics are missing and why, and what was skipped, by contestant."""
    found = [f"not measured: {reason}" for reason in results.missing]
    if (count := len(results.utterances)) < FEW:
        found.append(f"intervals of {count} recordings are too narrow: measure {FEW} or more to tell models apart")
    bad = [*((RECORDING, *each) for each in results.broken), *results.outcome.left_out]
    for contestant, count in Counter(who for who, *_ in bad).items():
        examples = "; ".join(f"{name}: {reason}" for who, name, reason in bad if who == contestant)
        found.append(f"{contestant}: {count} skipped: {examples}")
    return found


def _table(results: Results, summary: Mapping[str, Estimates], whole: int) -> str:
    head = ["", *(f"{each.title} {'↑' if each.better == 'higher' else '↓'}" for each in results.measures)]
    lines = [head]
    for name, estimates in summary.items():
        if any(estimates.values()):
            lines.append([name, *(shown(estimates[each.name], each, whole) for each in results.measures)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) for line in lines)


def rows_csv(results: Results) -> str:
    """Return one line per contestant and utterance; a value that is not defined is empty."""
    lines: list[list[Any]] = [["utterance", "speaker", "contestant", "seconds", *results.metrics]]
    for row in results.rows:
        values = (_number(row.values.get(metric, math.nan)) for metric in results.metrics)
        lines.append([row.utterance, row.speaker, row.contestant, row.seconds, *values])
    return _csv(lines)


def summary_csv(results: Results) -> str:
    """Return one line per speaker (empty for all), contestant and metric, with mean, interval and count."""
    lines: list[list[Any]] = [["speaker", "contestant", "metric", "mean", "low", "high", "count"]]
    for speaker, summary in {"": results.summary, **results.speakers}.items():
        for contestant, estimates in summary.items():
            for metric, each in estimates.items():
                if each:
                    lines.append([speaker, contestant, metric, each.mean, each.low, each.high, each.count])
    return _csv(lines)


def as_json(results: Results) -> str:
    """Return everything but the audio, in one document."""

    def plain(summary: Mapping[str, Estimates]) -> dict[str, Any]:
        return {
            name: {metric: asdict(each) for metric, each in estimates.items() if each}
            for name, estimates in summary.items()
        }

    about = ("title", "unit", "better", "perfect", "source")
    document = {
        "sample_rate": results.sample_rate,
        "interval": {"level": LEVEL, "method": "percentile bootstrap over utterances", "resamples": RESAMPLES},
        "metrics": {
            each.name: {key: getattr(each, key) for key in about}
            | {"cpu_seconds_per_second": results.outcome.costs.get(each.name)}
            for each in results.measures
        },
        "missing": list(results.missing),
        "contestants": results.names,
        "summary": plain(results.summary),
        "speakers": {speaker: plain(summary) for speaker, summary in results.speakers.items()},
        "differences": [
            {"first": first, "second": second, "first_minus_second": plain({"": estimates})[""]}
            for (first, second), estimates in results.differences.items()
        ],
        "utterances": [
            {
                "utterance": row.utterance,
                "speaker": row.speaker or None,
                "contestant": row.contestant,
                "seconds": row.seconds,
                "values": {metric: _number(value) for metric, value in row.values.items()},
            }
            for row in results.rows
        ],
        "skipped": [
            {"contestant": who, "utterance": name, "reason": reason}
            for who, name, reason in [*((RECORDING, *each) for each in results.broken), *results.outcome.left_out]
        ],
    }
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _csv(lines: Iterable[Sequence[Any]]) -> str:
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(lines)
    return written.getvalue()
