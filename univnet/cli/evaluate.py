"""The ``evaluate`` verb: how good vocoders sound, in the field's metrics, on the same recordings."""

import argparse
import tempfile
import textwrap
import warnings
from collections import Counter
from collections.abc import Sequence
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from tqdm import tqdm

from univnet.cli.help.page import WIDTH
from univnet.cli.help.verb_parser import VerbParser
from univnet.cli.messages import UsageError
from univnet.cli.synthesize import WEIGHT_FILES, load_vocoder
from univnet.common.files import remove_partial, write_text
from univnet.common.folders import cannot_write_to
from univnet.common.mistakes import Mistakes
from univnet.common.processes import available_processors
from univnet.data import AudioFile, check_files, read_manifest, scan_folder
from univnet.metrics import METRICS, TABLE, choose
from univnet.metrics.base import MissingPackageError
from univnet.metrics.report.contestants import Contestant, Folder, GriffinLim, HiFiGAN, copy_mel
from univnet.metrics.report.page import page
from univnet.metrics.report.results import Results, as_json, rows_csv, summary_csv, text
from univnet.metrics.report.run import RECORDING, Plan
from univnet.metrics.report.run import run as run_plan
from univnet.vocoder import Vocoder
from univnet.weights.sources import Choice


@dataclass
class Checkpoint:
    """A trained vocoder as a contestant: it speaks the mel-spectrograms of recordings.

    Args:
        name: what it is called.
        source: what ``load_vocoder`` takes: a checkpoint, a published folder, or its name.
        weights: which of a checkpoint's.
        device: torch device.
    """

    name: str
    source: Path
    weights: Choice
    device: str = "cpu"
    _vocoder: Vocoder | None = field(default=None, repr=False)

    @property
    def vocoder(self) -> Vocoder:
        """The vocoder, loaded when it is first asked for."""
        if self._vocoder is None:
            self._vocoder = load_vocoder(self.source, self.weights, self.device)
        return self._vocoder

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_vocoder": None}  # other processes load it themselves

    def speak(self, recording: AudioFile) -> tuple[Tensor, int]:
        """Return the audio for the recording's mel-spectrogram."""
        vocoder = self.vocoder
        mel = copy_mel(recording, vocoder.mel.cpu()).to(self.device)
        return vocoder(mel)[0, 0].cpu(), vocoder.sample_rate


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments, measure, print the table, and write JSON, CSV and one HTML page.

    Raises:
        UsageError: naming every argument that does not fit, before anything is measured.
        FileNotFoundError, ValueError: for data or a checkpoint that cannot be used.
    """
    options = _parser().parse_args(argv)
    _check(options)
    recordings, broken = _recordings(options.data, options.limit)
    checkpoints = _checkpoints(options.checkpoint, options.weights, options.device)
    rate = _sample_rate(options.sample_rate, checkpoints, recordings)
    contestants = [*checkpoints, *_others(options, checkpoints, rate)]
    if not contestants:
        raise UsageError("nobody takes part: give --checkpoint FILE, --wavs NAME=DIR or --griffin-lim")
    twice = [name for name, n in Counter([RECORDING, *(each.name for each in contestants)]).items() if n > 1]
    if twice:
        raise UsageError(f"there are several contestants called {', '.join(twice)}: name them, as in NAME=PATH")
    wanted = choose(_with_tiny(options.metrics) if options.fast else options.metrics)
    measures, missing = [each for each in wanted if not each.missing], [each.missing for each in wanted if each.missing]
    if not measures:
        raise UsageError(f"none of the metrics can be computed here: {'; '.join(map(str, missing))}")
    options.output.mkdir(parents=True, exist_ok=True)
    remove_partial(options.output)
    with tempfile.TemporaryDirectory() as folder, tqdm(total=len(recordings), unit="utterance") as bar:
        plan = Plan(contestants, [each.name for each in measures], rate, Path(folder))
        try:
            outcome = run_plan(plan, recordings, options.jobs, on_done=bar.update)
        except BrokenProcessPool as error:
            raise UsageError("a process was ended from outside, perhaps for lack of memory: lower --jobs") from error
        bar.close()
        if not any(row.contestant != RECORDING for row in outcome.rows):
            reasons = "; ".join(f"{who}: {name}: {reason}" for who, name, reason in outcome.left_out[:3])
            raise ValueError(f"nothing could be measured: {reasons}")
        names = [each.name for each in contestants]
        results = Results(outcome, names, measures, [m for m in missing if m], rate, broken)
        write_text(options.output / "results.json", as_json(results))
        write_text(options.output / "utterances.csv", rows_csv(results))
        write_text(options.output / "summary.csv", summary_csv(results))
        write_text(options.output / "index.html", page(results, options.embed))
    print(text(results))
    print(f"\n{options.output / 'index.html'}: to hear and see; summary.csv, utterances.csv, results.json beside it")


def _parser() -> VerbParser:
    parser = VerbParser(
        "evaluate",
        "Measure how good vocoders sound, in the field's metrics, on the same recordings.",
        "--data corpus/validation.tsv --checkpoint best.ckpt --output report",
        textwrap.fill(f"Metrics: {', '.join(METRICS)}. Default: {', '.join(TABLE)}.", WIDTH),
    )
    add = parser.group("From what to where")
    add("--data", required=True, type=Path, metavar="PATH", help="recordings: a folder, or a manifest (.csv, .tsv)")
    add("--output", required=True, type=Path, metavar="DIR", help="folder of the report, made if missing")
    add("--limit", type=int, metavar="N", help="number of recordings, spread over all of them (default: all)")
    add = parser.group("Who takes part")
    add(
        "--checkpoint",
        nargs="+",
        default=[],
        metavar="[NAME=]FILE",
        help="checkpoints, folders, hub names, or demo, the shipped vocoder",
    )
    add(
        "--weights",
        choices=("both", "averaged", "raw"),
        default="both",
        help="both: averaged and raw ones",
    )
    add(
        "--wavs", nargs="+", default=[], metavar="NAME=DIR", help="audio of other systems, in files named as the data's"
    )
    add("--peer", nargs="+", default=[], choices=("hifigan",), help="published models to compare with")
    add(
        "--griffin-lim",
        action=argparse.BooleanOptionalAction,
        help="Griffin-Lim of 64 iterations (default: if there is a checkpoint)",
    )
    add = parser.group("What is measured")
    add(
        "--metrics",
        nargs="+",
        default=list(TABLE),
        metavar="NAME",
        help="names from the list below (default: there, too)",
    )
    add(
        "--fast",
        action="store_true",
        help="pitch by CREPE's tiny model: 17 times as fast, not to compare with papers",
    )
    add(
        "--sample-rate",
        type=int,
        metavar="HZ",
        help="Hz at which to compare (default: the checkpoints', else the data's)",
    )
    add = parser.group("The work itself, and its report")
    add(
        "--jobs",
        type=int,
        default=available_processors(),
        metavar="N",
        help="processes (default: one per processor that may be used)",
    )
    add("--device", default="cpu", metavar="NAME", help="torch device of the checkpoints, such as cuda")
    add("--embed", type=int, default=20, metavar="N", help="number of recordings to hear on the report's page")
    return parser


def _check(options: argparse.Namespace) -> None:
    mistakes = Mistakes("evaluate")
    if mistake := cannot_write_to(options.output, "--output"):
        mistakes.add([mistake])
    mistakes.unless(options.data.exists(), f"there is no folder or manifest {options.data}: check --data")
    for name in ("limit", "jobs", "sample_rate"):
        value = getattr(options, name)
        mistakes.unless(value is None or value > 0, f"--{name.replace('_', '-')} must be at least 1, got {value}")
    mistakes.unless(options.embed >= 0, f"--embed must not be negative, got {options.embed}")
    mistakes.add(f"--wavs {each} must be NAME=DIR" for each in options.wavs if not all(each.partition("=")))
    paths = [Path(_named(each)[1]) for each in options.checkpoint]
    files = [path for path in paths if path.suffix in WEIGHT_FILES]  # others are folders or names
    mistakes.add(f"there is no checkpoint {path}" for path in files if not path.is_file())
    try:
        choose(options.metrics)
    except ValueError as error:
        mistakes.add([str(error)])
    mistakes.raise_all(UsageError)


def _recordings(data: Path, limit: int | None) -> tuple[list[AudioFile], list[tuple[str, str]]]:
    """Return the recordings, their speakers the manifest's or their first folders, and those left out with reasons."""
    if data.is_dir():
        found = [
            replace(file, speaker=file.name.split("/")[0] if "/" in file.name else None)
            for file in scan_folder(data, "--data")
        ]
    else:
        found = read_manifest(data)
    if limit is not None and limit < len(found):
        found = [found[place * len(found) // limit] for place in range(limit)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the report names those left out
        kept, dropped = check_files(found)
    return kept, [(file.name, reason) for reason, files in dropped.items() for file in files]


def _named(given: str) -> tuple[str, str]:
    """Return the name, or "", and the path of ``[NAME=]PATH``."""
    name, equals, path = given.partition("=")
    return (name, path) if equals and not Path(given).exists() else ("", given)


def _checkpoints(given: Sequence[str], weights: str, device: str) -> list[Checkpoint]:
    """Return the models, loaded, so that a mistake is told before anything is measured."""
    found = []
    for each in given:
        name, path = _named(each)
        name = name or Path(path).stem
        if weights != "both":
            found.append(Checkpoint(f"{name} ({weights})", Path(path), cast(Choice, weights), device))
            continue
        kinds: tuple[Choice, Choice] = ("averaged", "raw")
        averaged, raw = (Checkpoint(f"{name} ({kind})", Path(path), kind, device) for kind in kinds)
        if not _same_weights(Checkpoint(name, Path(path), "auto", device), raw):
            found += [averaged, raw]
        else:  # there are no others
            found.append(Checkpoint(name, Path(path), "auto", device))
    for contestant in found:
        contestant.vocoder  # noqa: B018
    return found


def _same_weights(first: Checkpoint, second: Checkpoint) -> bool:
    states = first.vocoder.state_dict(), second.vocoder.state_dict()
    return all(torch.equal(weight, states[1][name]) for name, weight in states[0].items())


def _sample_rate(given: int | None, checkpoints: Sequence[Checkpoint], recordings: Sequence[AudioFile]) -> int:
    rates = {each.name: each.vocoder.sample_rate for each in checkpoints}
    if given is not None:
        return given
    if len(set(rates.values())) > 1:
        listed = ", ".join(f"{name} at {rate} Hz" for name, rate in rates.items())
        raise UsageError(f"the checkpoints have different sample rates ({listed}): choose one with --sample-rate")
    if rates:
        return next(iter(rates.values()))
    return Counter(file.sample_rate for file in recordings).most_common(1)[0][0]


def _others(options: argparse.Namespace, checkpoints: Sequence[Checkpoint], rate: int) -> list[Contestant]:
    found: list[Contestant] = []
    if options.griffin_lim or (options.griffin_lim is None and checkpoints):
        mel = checkpoints[0].vocoder.mel.config if checkpoints else {"sample_rate": rate}
        found.append(GriffinLim(mel))
    try:
        found += [HiFiGAN() for peer in options.peer if peer == "hifigan"]
    except MissingPackageError as error:
        raise UsageError(str(error)) from error
    for each in options.wavs:
        name, _, folder = each.partition("=")
        found.append(Folder(name, Path(folder), rate))
    return found


def _with_tiny(names: Sequence[str]) -> list[str]:
    return [f"{name}_tiny" if f"{name}_tiny" in METRICS else name for name in names]
