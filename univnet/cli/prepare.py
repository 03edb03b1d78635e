"""The ``prepare`` verb: a corpus in, recordings to train on and a manifest of them out."""

import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from univnet.cli.help.verb_parser import VerbParser
from univnet.cli.messages import UsageError
from univnet.common.files import NO_ROOM, written_whole
from univnet.common.folders import cannot_write_to
from univnet.common.processes import available_processors
from univnet.data.corpora import CORPORA, Source, find_sources, read_metadata
from univnet.data.preparing import (
    DOWNLOADS,
    SETS,
    Record,
    Settings,
    assign_splits,
    download,
    prepare_recordings,
    write_tables,
)

_DEFAULT_LEVEL = {"none": 0.0, "peak": -3.0, "loudness": -23.0}
_NAMES = f"ljspeech, vctk, or sets of LibriTTS ({', '.join(SETS)})"


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments, prepare the corpus, and say what came of it.

    Raises:
        UsageError: for arguments that do not fit, all at once; before anything is written.
        FileNotFoundError, ValueError: for a corpus that is not there, or of which nothing is left.
        ConnectionError: for one that cannot be downloaded.
    """
    options = _parser().parse_args(argv)
    mistakes = _mistakes(options)
    if mistakes:
        raise UsageError(f"{'; '.join(mistakes)}; see `univnet prepare --help`")
    try:
        _prepare(options)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        raise OSError(
            error.errno,
            f"{error.strerror}: make room, then give the same command again, which goes on where it was",
            error.filename,
        ) from error


def _prepare(options: Any) -> None:
    for name in options.download or ():
        print(f"univnet: downloads {name}, unless it is there")
        download(name, options.source)
    if options.metadata is not None:
        corpus, sources = "table", read_metadata(options.metadata, options.source)
    else:
        corpus, sources = find_sources(options.source, options.corpus)
    level = _DEFAULT_LEVEL[options.normalize] if options.level is None else options.level
    settings = Settings(
        options.sample_rate,
        options.format,
        options.trim,
        options.normalize,
        level,
        options.min_seconds,
        options.min_bandwidth,
    )
    validation = float(options.validation) if "." in options.validation else int(options.validation)
    print(f"univnet: {len(sources)} recordings ({corpus}) from {options.source} to {options.output}")
    sizes = [_size(source) for source in sources]
    with tqdm(total=sum(sizes), unit="B", unit_scale=True, disable=options.quiet) as bar:
        by_name = dict(zip((source.file.name for source in sources), sizes, strict=True))
        records, done = prepare_recordings(
            sources,
            settings,
            options.output,
            options.workers,
            lambda source: bar.update(by_name[source.file.name]) or None,
        )
    kept = [source for source, record in zip(sources, records, strict=True) if not record.dropped]
    if not kept:
        reasons = ", ".join(sorted({record.dropped for record in records}))
        raise ValueError(f"none of the {len(sources)} recordings in {options.source} can be used: {reasons}")
    splits = assign_splits(kept, validation, options.seed, options.disjoint_speakers)
    report = write_tables(options.output, sources, records, splits, settings)
    _draw(options.output / "report.png", records, settings)
    print(_summary(report, done, options.output))


def _parser() -> VerbParser:
    parser = VerbParser(
        "prepare",
        "Make a corpus ready to train on: resampled, checked, split for validation, and listed in manifests.",
        "LibriTTS --output corpus --sample-rate 24000",
        f"Sets of LibriTTS: {', '.join(SETS[:4])},\n{', '.join(SETS[4:])}.",
    )
    add = parser.group("From where to where")
    add("source", type=Path, help="folder of a corpus as it was unpacked, or any folder of recordings")
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to, made if missing")
    add(
        "--download",
        nargs="+",
        choices=DOWNLOADS,
        metavar="NAME",
        help="first download ljspeech, vctk or sets of LibriTTS (below) to SOURCE",
    )
    add("--corpus", choices=CORPORA, default="auto", help="layout of the folder")
    add(
        "--metadata",
        type=Path,
        metavar="FILE",
        help="a table of lines path|text|speaker, with paths relative to SOURCE",
    )
    add = parser.group("Audio that is written")
    add("--sample-rate", type=int, default=24000, metavar="HZ", help="sample rate in Hz")
    add("--format", choices=("flac", "wav"), default="flac", help="of the files, which are of 16 bits")
    add(
        "--trim",
        type=float,
        metavar="DB",
        help="cut ends that are this many dB below the loudest 10 ms (default: do not)",
    )
    add("--normalize", choices=("none", "peak", "loudness"), default="none", help="bring each recording to --level")
    add(
        "--level",
        type=float,
        metavar="DB",
        help="peak in dB of full scale (default: -3), or loudness in LUFS (default: -23)",
    )
    add = parser.group("Which recordings are kept, and for what")
    add("--min-seconds", type=float, default=0.0, metavar="SECONDS", help="leave out shorter recordings")
    add("--min-bandwidth", type=float, metavar="HZ", help="leave out recordings without sound up to this frequency")
    add("--validation", default="0.02", metavar="N", help="recordings to validate on: a share (below 1.0) or a number")
    add("--disjoint-speakers", action="store_true", help="validate on speakers that are not trained on")
    add("--seed", type=int, default=1234, metavar="N", help="seed of the random choice of recordings to validate on")
    add = parser.group("The work itself")
    add(
        "--workers",
        type=int,
        default=available_processors(),
        metavar="N",
        help="processes, 0 for none but this one (default: one per processor that may be used)",
    )
    add("--quiet", action="store_true", help="show no progress bar")
    return parser


def _mistakes(options: Any) -> list[str]:
    try:
        share = float(options.validation)
    except ValueError:
        share = -1.0
    rules = {
        f"--validation must be a share such as 0.02 or a number, got {options.validation}": (
            share >= 0 and ("." not in options.validation or share < 1)
        ),
        f"--sample-rate must lie in 4000…768000, got {options.sample_rate}": 4000 <= options.sample_rate <= 768000,
        f"--workers must not be negative, got {options.workers}": options.workers >= 0,
        f"--min-seconds must not be negative, got {options.min_seconds}": options.min_seconds >= 0,
        f"--level must not be above 0, got {options.level}": options.level is None or options.level <= 0,
        "--level needs --normalize peak or loudness": options.level is None or options.normalize != "none",
        "--download takes one corpus at a time: ljspeech, vctk, or sets of LibriTTS": (
            len(options.download or ()) < 2 or set(options.download) <= set(SETS)
        ),
        f"--output must not lie in the source, {options.source}": (
            options.source.resolve() not in (options.output.resolve(), *options.output.resolve().parents)
        ),
    }
    found = [rule for rule, kept in rules.items() if not kept]
    output = cannot_write_to(options.output, "--output")
    return found if output is None else [*found, output]


def _size(source: Source) -> int:
    try:
        return os.path.getsize(source.file.path)
    except OSError:
        return 0


def _draw(path: Path, records: Sequence[Record], settings: Settings) -> None:
    """Draw durations, loudness and bandwidth; leave a picture that would not change alone."""
    from univnet.audio.picture import histograms  # draws with matplotlib

    kept = [record for record in records if not record.dropped]
    values = {
        "seconds": [record.frames / settings.sample_rate for record in kept],
        "loudness in LUFS": [record.loudness for record in kept if record.loudness is not None],
        "sound up to kHz": [record.bandwidth / 1000 for record in kept],
    }
    drawn = io.BytesIO()
    histograms(values, f"{len(kept)} recordings").savefig(drawn, dpi=110, metadata={"Software": None})
    if not path.is_file() or path.read_bytes() != drawn.getvalue():
        with written_whole(path) as unfinished:
            unfinished.write_bytes(drawn.getvalue())


def _summary(report: dict[str, Any], done: int, folder: Path) -> str:
    lines = [f"univnet: {report['recordings']} recordings are in {folder}, {done} of the sources were worked on now"]
    for name, numbers in report["splits"].items():
        lines.append(
            f"  {name}: {numbers['recordings']} recordings, {numbers['hours']:.2f} h, {numbers['speakers']} speakers"
        )
    lines += [
        f"  dropped: {len(names)} {reason}, for example {names[0]}" for reason, names in report["dropped"].items()
    ]
    lines += [f"  repaired: {count} {repair}" for repair, count in report["repaired"].items()]
    narrow = report["narrow"]
    if names := narrow["recordings"]:
        lines.append(
            f"  narrow: {len(names)} have no sound above {narrow['below Hz'] / 1000:g} kHz, as if upsampled or "
            f"coded at a low rate, for example {names[0]}; --min-bandwidth drops such"
        )
    return "\n".join(lines)
