"""All recordings of a corpus, on all cores: what was done before is not done again, and a kill loses nothing."""

import json
import multiprocessing
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict
from pathlib import Path

from univnet.audio import shown
from univnet.common.files import remove_partial, write_text
from univnet.data.corpora import Source
from univnet.data.preparing.recording import Record, Settings, begin_worker, prepare_recording, stamp_of

JOURNAL = "prepared.jsonl"
_context = "forkserver"  # a fork of this process might copy a lock that one of torch's threads holds
Job = tuple[Source, Settings, Path, str]


def prepare_recordings(
    sources: Sequence[Source],
    settings: Settings,
    folder: Path,
    workers: int = 1,
    progress: Callable[[Source], None] = lambda source: None,
) -> tuple[list[Record], int]:
    """Prepare what is not prepared yet.

    Each recording that is done is noted in a journal in the folder. What the journal has of the same source, as it is
    now, with the same settings, and whose output is there, is not done again.

    Args:
        sources: what to prepare.
        settings: what is done to each.
        folder: where to write.
        workers: processes; 0 works in this one.
        progress: is called once for each source, with those that need nothing first.

    Returns:
        What became of each source, in their order, and how many were done now.
    """
    folder.mkdir(parents=True, exist_ok=True)
    where = targets(sources, settings)
    for place in {folder, *((folder / target).parent for target in where)}:
        remove_partial(place)
    known = read_journal(folder / JOURNAL)
    records: dict[str, Record] = {}
    jobs: list[Job] = []
    for source, target in zip(sources, where, strict=True):
        record = known.get(source.file.name)
        if record and record.stamp == stamp_of(source, settings, target) and _is_there(folder, record):
            records[source.file.name] = record
            progress(source)
        else:
            jobs.append((source, settings, folder, target))
    if jobs:
        with (folder / JOURNAL).open("a", encoding="utf-8") as journal:
            if journal.tell():
                journal.write("\n")  # ends a line that a kill cut short
            for job, record in _all(jobs, workers):
                records[record.name] = record
                journal.write(_line(record))
                journal.flush()
                progress(job[0])
    in_order = "".join(_line(record) for _, record in sorted(records.items()))
    if jobs or (sources and (folder / JOURNAL).read_text(encoding="utf-8") != in_order):  # killed after the last job
        write_text(folder / JOURNAL, in_order)
    return [records[source.file.name] for source in sources], len(jobs)


def targets(sources: Iterable[Source], settings: Settings) -> list[str]:
    """Where each source is written, relative to the folder: by its own name, and by all of it where two would meet."""
    names = [_clean(source.file.name) for source in sources]
    meet = Counter(os.path.splitext(name)[0] for name in names)
    return [
        f"{name if meet[os.path.splitext(name)[0]] > 1 else os.path.splitext(name)[0]}.{settings.format}"
        for name in names
    ]


def read_journal(path: Path) -> dict[str, Record]:
    """The records in a journal by name, the last of each; lines that a kill cut short are left out."""
    records = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            fields = json.loads(line)
            record = Record(**{**fields, "repairs": tuple(fields["repairs"])})
        except (ValueError, TypeError, KeyError):
            continue
        records[record.name] = record
    return records


def _line(record: Record) -> str:
    return json.dumps(asdict(record)) + "\n"


def _is_there(folder: Path, record: Record) -> bool:
    if record.dropped:
        return True
    try:
        return os.path.getsize(folder / record.path) == record.size
    except OSError:
        return False


def _clean(name: str) -> str:
    """A name for a file in the folder, whatever the source's: no way out of it, no character that breaks a table."""
    parts = [part for part in name.replace("\\", "_").split("/") if part not in ("", ".", "..")]
    return "/".join("".join("_" if ord(character) < 32 else character for character in part) for part in parts)


def _all(jobs: Sequence[Job], workers: int) -> Iterator[tuple[Job, Record]]:
    """What becomes of each job, as they end. One that kills its process is tried again alone, and then dropped."""
    if not workers:
        yield from ((job, _prepared(job)) for job in jobs)
        return
    waiting, suspects = list(reversed(jobs)), list[Job]()
    while waiting or suspects:
        alone = not waiting
        with _pool(1 if alone else workers) as pool:
            running: dict[Future[Record], Job] = {}
            queue = suspects if alone else waiting
            try:
                while queue or running:
                    while queue and len(running) < (1 if alone else 4 * workers):
                        job = queue.pop()
                        running[pool.submit(_prepared, job)] = job
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        record = future.result()
                        yield running.pop(future), record
            except BrokenProcessPool:
                if alone:
                    (job,) = running.values()
                    yield (
                        job,
                        Record(job[0].file.name, stamp_of(job[0], job[1], job[3]), "ending the process that reads"),
                    )
                else:
                    suspects += running.values()


def _pool(workers: int) -> ProcessPoolExecutor:
    context = multiprocessing.get_context(_context)
    if _context == "forkserver":
        context.set_forkserver_preload([prepare_recording.__module__])
    return ProcessPoolExecutor(workers, mp_context=context, initializer=begin_worker)


def _prepared(job: Job) -> Record:
    source, settings, folder, target = job
    try:
        return prepare_recording(source, settings, folder, target)
    except OSError:
        raise  # a full disk is no fault of the recording
    except Exception as error:  # of a damaged file, libsndfile may say anything
        why = shown(" ".join(str(error).split())[:100])
        return Record(source.file.name, stamp_of(source, settings, target), f"not readable: {why}")
