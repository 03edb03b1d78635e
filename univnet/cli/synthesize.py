"""The ``synthesize`` verb: recordings or log-mel-spectrograms in, audio files out."""

import argparse
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from univnet.audio import MelFormat, audio_length, read_segment
from univnet.audio.formats import doubt
from univnet.audio.io import RECORDINGS
from univnet.audio.mel_files import EXTENSIONS, frames_of_pipe, open_mel
from univnet.audio.writing import Encoding, audio_writer, cannot_write
from univnet.cli.help.verb_parser import VerbParser
from univnet.cli.messages import UsageError
from univnet.common.files import written_whole
from univnet.common.folders import cannot_write_to
from univnet.common.mistakes import Mistakes
from univnet.vocoder import CHUNK_FRAMES, Vocoder
from univnet.weights.sources import Choice, read_weights

PIPE = Path("-")
WEIGHT_FILES = (".ckpt", ".pt", ".safetensors")  # other names are folders, or of the hub


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments and write one audio file (and, if asked, one picture) per input.

    Raises:
        UsageError: for arguments that do not fit, before anything is written; or at the end, naming the inputs that
            failed. The others are written.
    """
    options = _parser().parse_args(argv)
    options.mel_format = options.mel_format and MelFormat.named(options.mel_format)
    targets = _targets(options)
    vocoder = load_vocoder(options.checkpoint, options.weights, options.device)
    if options.mel_format is not None and (differ := options.mel_format.differences(vocoder.mel)):
        raise UsageError(f"--mel-format {options.mel_format.name} does not fit this vocoder: {'; '.join(differ)}")
    failed = {}
    seconds = spent = 0.0
    with tqdm(total=len(targets), unit="file", disable=None, leave=False) as bar:
        for path, target in targets.items():
            begun = time.perf_counter()
            try:
                seconds += _write(vocoder, path, target, options) / vocoder.sample_rate
            except (ValueError, OSError) as error:
                failed[path] = str(error)
            else:
                print(target, file=sys.stderr if target == PIPE else sys.stdout)
            spent += time.perf_counter() - begun
            bar.set_postfix_str(f"{seconds / spent:.1f} times real time")
            bar.update()
    if failed:
        several = f"{len(failed)} of {len(targets)} inputs failed, the others are written: " if len(targets) > 1 else ""
        raise UsageError(
            several + "; ".join(why if str(path) in why else f"{path}: {why}" for path, why in failed.items())
        )


def _parser() -> VerbParser:
    parser = VerbParser(
        "synthesize",
        "Make audio from recordings (by way of their mel-spectrograms) or from mel-spectrograms.",
        "recordings/ --checkpoint best.ckpt --output speech",
        f"Recordings: WAV, FLAC, OGG, MP3, and what else libsndfile decodes. Mels: {', '.join(EXTENSIONS)}.\n"
        "Folders are searched at any depth. With --stream, an input - is a pipe of mels in 32-bit floats, one\n"
        "frame after the other, and --output - is a pipe of samples.",
    )
    add = parser.group("From what to where")
    add("inputs", nargs="+", type=Path, help="recordings, mel-spectrograms, or folders of either")
    add(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="FILE",
        help="checkpoint, exported folder, name on the hub, or demo, the shipped vocoder",
    )
    add("--output", required=True, type=Path, metavar="DIR", help="folder to write to, made if missing")
    add("--overwrite", action="store_true", help="replace files that are there (default: refuse)")
    add("--pictures", action="store_true", help="draw each input's mel-spectrogram beside the output's, as PNG")
    add = parser.group("Audio that is written")
    add("--format", choices=("wav", "flac"), default="wav", help="file format")
    add("--encoding", choices=("16", "24", "float"), default="16", help="bits per sample, or 32-bit floats")
    add = parser.group("How it is made")
    add("--device", default="cpu", metavar="NAME", help="torch device, such as cuda")
    add(
        "--mel-format",
        metavar="NAME",
        help="format of the mels, such as hifigan,sample_rate=16000 (default: this vocoder's)",
    )
    add(
        "--stream", action="store_true", help="read mels piece by piece, in memory that does not grow with their length"
    )
    add(
        "--weights",
        choices=("auto", "averaged", "raw"),
        default="auto",
        help="which weights, auto: averaged ones if there are any",
    )
    add("--seed", type=int, default=0, metavar="N", help="seed of the input noise")
    return parser


def load_vocoder(source: Path, weights: Choice = "auto", device: str = "cpu") -> Vocoder:
    """Return the vocoder in a checkpoint of ours or of the reference's, a published folder, or the hub.

    Raises:
        UsageError: the device cannot be used.
        FileNotFoundError, ValueError: there is none, or it is damaged.
    """
    if not source.is_file() and source.suffix in WEIGHT_FILES:
        raise FileNotFoundError(f"there is no checkpoint {source}")
    found = read_weights(source, weights)
    vocoder = Vocoder(*found.build())
    vocoder.about = found.about
    try:
        return vocoder.to(device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f"--device {device} cannot be used here: {str(error).splitlines()[0]}") from error


def _targets(options: argparse.Namespace) -> dict[Path, Path]:
    """Return where each input's audio goes.

    Raises:
        UsageError: names every mistake in what is to be read and written.
    """
    mistakes, targets = Mistakes("synthesize"), dict[Path, Path]()
    sources: dict[Path, Path] = {}
    folder = options.output
    to_pipe = folder == PIPE
    mistakes.unless(not to_pipe or options.stream, "--output - needs --stream")
    if not to_pipe and (mistake := cannot_write_to(folder, "--output")):
        mistakes.add([mistake])
    if mistake := cannot_write(f"x.{options.format}", options.encoding):
        mistakes.add([mistake.partition(": ")[2]])
    for path, name in _inputs(options, mistakes):
        target = PIPE if to_pipe else folder / name.with_suffix(f".{options.format}")
        if path != PIPE and target.resolve() == path.resolve():
            mistakes.add([f"{path} would be overwritten: give another --output folder"])
        elif target in sources:
            mistakes.add([f"{sources[target]} and {path} would both be written to {target}: run them one by one"])
        elif not to_pipe and target.exists() and not options.overwrite:
            mistakes.add([f"{target} is there already: give --overwrite, or another --output folder"])
        sources.setdefault(target, path)
        targets[path] = target
    mistakes.raise_all(UsageError)
    return targets


def _inputs(options: argparse.Namespace, mistakes: Mistakes) -> Iterator[tuple[Path, Path]]:
    """Yield each file to read, and the name of what is written, below the output folder."""
    for path in options.inputs:
        if path == PIPE:
            mistakes.unless(options.stream, "reading from a pipe needs --stream")
            yield path, Path("pipe")
        elif path.is_dir():
            known = RECORDINGS | {*EXTENSIONS}
            found = sorted(each for each in path.rglob("*") if each.suffix.lower() in known and each.is_file())
            mistakes.unless(
                bool(found),
                f"the folder {path} holds no recording and no mel ({', '.join(sorted(known))}) at any depth",
            )
            yield from ((each, each.relative_to(path)) for each in found)
        elif path.is_file():
            yield path, Path(path.name)
        else:
            mistakes.add([f"there is no file {path}"])


def synthesize(vocoder: Vocoder, path: Path, folder: Path, seed: int | None = 0, picture: bool = False) -> Path:
    """Vocode one file into ``folder`` and return the WAV's path; with ``picture``, draw a PNG beside it.

    Raises:
        FileNotFoundError: where there is no such file.
        ValueError: where it is no audio, or no mel-spectrogram of the vocoder's shape.
    """
    target = folder / f"{path.stem}.wav"
    usual = {"stream": False, "mel_format": None, "encoding": "16"}
    _write(vocoder, path, target, argparse.Namespace(seed=seed, pictures=picture, **usual))
    return target


def _write(vocoder: Vocoder, path: Path, target: Path, options: argparse.Namespace) -> int:
    """Vocode one input; return how many samples were written."""
    if options.stream and (path == PIPE or path.suffix.lower() in EXTENSIONS):
        with _pieces_to(target, vocoder.sample_rate, options.encoding) as write:
            return _stream(vocoder, path, options, write)
    mel, delay = _read_mel(vocoder, path, options.mel_format)
    audio = vocoder(mel.to(vocoder.mel.filters.device)[None], seed=options.seed)[0, 0, delay:]
    with _pieces_to(target, vocoder.sample_rate, options.encoding) as write:
        write(audio)
    if options.pictures:
        from univnet.audio.picture import mel_picture  # draws with matplotlib, and brings Lightning

        generated = vocoder.mel(audio[None, None])[0].cpu().numpy()
        figure = mel_picture(mel.cpu().numpy(), generated, vocoder.mel.config, title=path.name)
        with written_whole(target.with_suffix(".png")) as partial:
            figure.savefig(partial, format="png", dpi=110)
    return len(audio)


def _stream(vocoder: Vocoder, path: Path, options: argparse.Namespace, write: Callable[[Tensor], None]) -> int:
    left = _delay(options.mel_format)  # samples still to cut from the beginning
    written = 0
    for audio in vocoder.stream(_chunks(vocoder, path, options.mel_format), options.seed):
        piece = audio[0, 0, left:]
        left -= audio.shape[2] - len(piece)
        write(piece)
        written += len(piece)
    return written


def _chunks(vocoder: Vocoder, path: Path, form: MelFormat | None) -> Iterator[Tensor]:
    device, bands = vocoder.mel.filters.device, vocoder.mel.n_mels
    if path == PIPE:
        for chunk in frames_of_pipe(sys.stdin.buffer, bands, CHUNK_FRAMES):
            chunk = chunk.T if form is not None and form.frames_first else chunk
            yield _converted(chunk, vocoder, form, "the mel from the pipe").to(device)[None]
        return
    mel = open_mel(path)
    along = mel.ndim - 1 if form is None or not form.frames_first else 0
    _check_shape(mel, vocoder, form, path)
    sample = mel.index_select(along, torch.arange(0, mel.shape[along], max(1, mel.shape[along] // 1024)))
    _converted(sample, vocoder, form, str(path))
    for start in range(0, mel.shape[along], CHUNK_FRAMES):
        chunk = mel.narrow(along, start, min(CHUNK_FRAMES, mel.shape[along] - start))
        yield _converted(chunk, vocoder, form, str(path), check=False).to(device)[None]


@contextmanager
def _pieces_to(target: Path, sample_rate: int, encoding: Encoding) -> Iterator[Callable[[Tensor], None]]:
    if target != PIPE:
        with audio_writer(target, sample_rate, encoding) as write:
            yield write
        return

    def to_pipe(audio: Tensor) -> None:
        samples = audio.float().cpu().numpy().clip(-1, 1)
        if encoding == "float":
            raw = samples.astype("<f4").tobytes()
        else:
            whole = np.rint(samples.astype(np.float64) * (2 ** (int(encoding) - 1) - 1)).astype("<i4")
            raw = whole.view(np.uint8).reshape(-1, 4)[:, : int(encoding) // 8].tobytes()
        sys.stdout.buffer.write(raw)
        sys.stdout.buffer.flush()

    yield to_pipe


def _read_mel(vocoder: Vocoder, path: Path, form: MelFormat | None) -> tuple[Tensor, int]:
    """Return the log-mel (n_mels, frames) of an input, and how many samples its audio comes late."""
    if path.suffix.lower() in EXTENSIONS:
        mel = open_mel(path)
        _check_shape(mel, vocoder, form, path)
        return _converted(mel, vocoder, form, str(path)), _delay(form)
    audio = read_segment(path, 0, audio_length(path, vocoder.sample_rate), vocoder.sample_rate)
    if not audio.numel():
        raise ValueError(f"{path} holds no sound: leave it out")
    if not audio.isfinite().all():
        raise ValueError(f"{path} holds NaN or infinity: leave it out")
    audio = F.pad(audio, (0, max(0, vocoder.mel.hop_length - audio.shape[-1])))
    return vocoder.mel(audio.to(vocoder.mel.filters.device)[None])[0], 0


def _check_shape(mel: Tensor, vocoder: Vocoder, form: MelFormat | None, path: Path) -> None:
    first = form is not None and form.frames_first
    if mel.ndim != 2 or mel.shape[1 if first else 0] != vocoder.mel.n_mels or not mel.numel():
        wanted = f"(frames, {vocoder.mel.n_mels})" if first else f"({vocoder.mel.n_mels}, frames)"
        raise ValueError(f"{path} has shape {tuple(mel.shape)}; this vocoder takes {wanted}")


def _converted(mel: Tensor, vocoder: Vocoder, form: MelFormat | None, where: str, check: bool = True) -> Tensor:
    if not mel.isfinite().all():
        raise ValueError(f"{where} holds NaN or infinity: leave it out")
    mel = mel.float() if form is None else form.convert(mel.float(), vocoder.mel)
    if check and (why := doubt(mel, vocoder.mel.floor)):
        raise ValueError(f"{where} cannot be vocoded as it is: {why}; name its format with --mel-format")
    return mel


def _delay(form: MelFormat | None) -> int:
    return 0 if form is None else form.delay()
