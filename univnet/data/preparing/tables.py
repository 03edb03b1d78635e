"""What a prepared corpus is described by: its splits, the manifest, a list per split, and a report."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from univnet.common.files import write_text
from univnet.data.corpora import Source
from univnet.data.manifest import split_files, uniform
from univnet.data.preparing.recording import Record, Settings

SPLITS = ("train", "validation", "test")
NARROW = 0.85  # of half the sample rate: with sound only below, a recording was upsampled, or coded at a low rate
_COLUMNS = ("path", "frames", "rate", "seconds", "speaker", "split", "peak", "loudness", "bandwidth", "sha256")


def assign_splits(
    sources: Sequence[Source], validation: int | float, seed: int = 1234, disjoint_speakers: bool = False
) -> list[str]:
    """The split of each source: the corpus's own where it has one, else by name, or by speaker.

    Args:
        sources: that were not dropped.
        validation: share (float below 1) or number (int) of the recordings to validate on, of those without an official
            split; 0 for none.
        seed: another seed, another split.
        disjoint_speakers: no speaker is in two splits: whole speakers go to validation, until it has at least what
            ``validation`` asks for. Needs speakers, and overrides the corpus's own splits.

    Raises:
        ValueError: ``validation`` is out of range, or leaves nothing to train on; or speakers are not known.
    """
    if not disjoint_speakers and all(source.split for source in sources):
        return [str(source.split) for source in sources]
    if not disjoint_speakers:
        chosen = {file.name for file in split_files([s.file for s in sources if not s.split], validation, seed)[1]}
        return [source.split or ("validation" if source.file.name in chosen else "train") for source in sources]
    counts = Counter(source.file.speaker for source in sources)
    if None in counts:
        raise ValueError(f"{counts[None]} recordings have no speaker, so that speakers cannot be kept apart.")
    wanted = validation * len(sources) if isinstance(validation, float) else validation
    apart: set[str | None] = set()
    for speaker in sorted(counts, key=lambda name: uniform(f"{seed}:{name}")):
        if sum(counts[name] for name in apart) < wanted:
            apart.add(speaker)
    if len(apart) == len(counts):
        raise ValueError(f"validation={validation} leaves none of the {len(counts)} speakers to train on: lower it.")
    return ["validation" if source.file.speaker in apart else "train" for source in sources]


def write_tables(
    folder: Path, sources: Sequence[Source], records: Sequence[Record], splits: Sequence[str], settings: Settings
) -> dict[str, Any]:
    """Write ``manifest.tsv``, a list for each split, and ``report.json``; return what the report holds.

    A file whose text would not change is left alone.

    Args:
        folder: where the recordings were written.
        sources: all of them.
        records: what became of each.
        splits: of those that were not dropped, in their order.
        settings: what was done.
    """
    kept = [(source, record) for source, record in zip(sources, records, strict=True) if not record.dropped]
    rows = []
    for (source, record), split in zip(kept, splits, strict=True):
        seconds = round(record.frames / settings.sample_rate, 4)
        speaker = " ".join((source.file.speaker or "").split())
        fields = (record.path, record.frames, settings.sample_rate, seconds, speaker, split, record.peak)
        rows.append((*fields, record.loudness, record.bandwidth, record.sha256))
    _keep(folder / "manifest.tsv", _table(_COLUMNS, rows))
    for split in SPLITS:
        chosen = [(row[0], row[4]) for row in rows if row[5] == split]
        if chosen:
            _keep(folder / f"{split}.tsv", _table(("path", "speaker"), chosen))
        else:
            (folder / f"{split}.tsv").unlink(missing_ok=True)
    report = _report([record for _, record in kept], [r for r in records if r.dropped], rows, settings)
    _keep(folder / "report.json", json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    return report


def _report(
    kept: Sequence[Record], dropped: Sequence[Record], rows: Sequence[Sequence[Any]], settings: Settings
) -> dict[str, Any]:
    reasons: dict[str, list[str]] = {}
    for record in dropped:
        reasons.setdefault(record.dropped, []).append(record.name)
    splits = {}
    for split in SPLITS:
        of_split = [row for row in rows if row[5] == split]
        hours = round(sum(row[3] for row in of_split) / 3600, 4)
        splits[split] = {
            "recordings": len(of_split),
            "hours": hours,
            "speakers": len({row[4] for row in of_split if row[4]}),
        }
    narrow = [record.name for record in kept if record.bandwidth < NARROW * settings.sample_rate / 2]
    return {
        "settings": asdict(settings),
        "recordings": len(kept),
        "splits": {name: numbers for name, numbers in splits.items() if numbers["recordings"]},
        "dropped": {reason: sorted(names) for reason, names in sorted(reasons.items())},
        "repaired": dict(sorted(Counter(repair for record in kept for repair in record.repairs).items())),
        "source rates": dict(sorted(Counter(str(record.source_rate) for record in kept).items())),
        "narrow": {"below Hz": NARROW * settings.sample_rate / 2, "recordings": sorted(narrow)},
    }


def _table(columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    lines = ["\t".join("" if value is None else str(value) for value in row) for row in rows]
    return "\n".join(["\t".join(columns), *sorted(lines), ""])


def _keep(path: Path, text: str) -> None:
    """Write it, unless it is there already."""
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)
