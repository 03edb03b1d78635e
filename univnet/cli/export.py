"""The ``export`` verb: a trained vocoder for other software, or for others to use."""

from collections.abc import Sequence
from pathlib import Path

from univnet.cli.help.verb_parser import VerbParser
from univnet.cli.messages import UsageError
from univnet.common.folders import cannot_write_to
from univnet.vocoder import Vocoder
from univnet.weights.folder import save_discriminator
from univnet.weights.sources import Weights, read_weights

TARGETS = {
    "folder": "safetensors, JSON and a model card, for Vocoder.from_pretrained and --init_from",
    "transformers": "a folder that transformers.UnivNetModel and its feature extractor load",
    "mindslab": "a checkpoint of the reference's code (maum-ai/univnet), both players",
    "onnx": "an ONNX model with dynamic batch and length",
    "torch-export": "a program of torch.export with dynamic batch and length (.pt2)",
}
FOLDERS = ("folder", "transformers")


def run(argv: Sequence[str]) -> None:
    """Parse the verb's arguments and write what ``--to`` names.

    Raises:
        UsageError: for arguments that do not fit; before anything is written.
        FileNotFoundError, ValueError: for a source that cannot be read, or expressed there.
    """
    options = _parser().parse_args(argv)
    target: Path = options.output
    if options.half and options.to != "folder":
        raise UsageError(f"--half is for --to folder alone: leave it out with --to {options.to}")
    if target.exists() and target.is_dir() != (options.to in FOLDERS):
        wanted = "folder" if options.to in FOLDERS else "file"
        raise UsageError(f"--to {options.to} writes a {wanted}, which {target} is not: name another --output")
    there = any(target.iterdir()) if target.is_dir() else target.exists()
    if there and not options.overwrite:
        raise UsageError(f"{target} is there already: give --overwrite, or another --output")
    if mistake := cannot_write_to(target if options.to in FOLDERS else target.parent, "--output"):
        raise UsageError(mistake)
    source = read_weights(options.checkpoint, options.weights)
    told = {name: getattr(options, name) for name in ("data", "license") if getattr(options, name)}
    print(export(source, options.to, target, told, options.half))


def _parser() -> VerbParser:
    width = max(map(len, TARGETS))
    parser = VerbParser(
        "export",
        "Write a trained vocoder for other software, or for others to use.",
        "--checkpoint best.ckpt --to onnx --output univnet.onnx",
        "\n".join(["What --to writes:", *(f"  {name:{width}}  {what}" for name, what in TARGETS.items())]),
    )
    add = parser.group("From what to where")
    add(
        "--checkpoint",
        required=True,
        type=Path,
        metavar="FILE",
        help="checkpoint (or the reference's), folder, hub name, or demo, the shipped vocoder",
    )
    add("--to", required=True, choices=TARGETS, metavar="NAME", help="what to write")
    add("--output", required=True, type=Path, metavar="PATH", help="file or folder to write, made if missing")
    add("--overwrite", action="store_true", help="replace what is there (default: refuse)")
    add(
        "--weights",
        choices=("auto", "averaged", "raw"),
        default="auto",
        help="which weights, auto: averaged ones if there are any",
    )
    add = parser.group("For --to folder")
    add("--data", metavar="TEXT", help="for the model card: what it was trained on")
    add("--license", metavar="NAME", help="for the model card: licence of the weights, such as cc-by-4.0")
    add("--half", action="store_true", help="weights in 16 bits, half the size")
    return parser


def export(source: Weights, to: str, target: Path, about: dict[str, str] | None = None, half: bool = False) -> Path:
    """Write ``source`` to ``target`` in the form ``to``, a key of ``TARGETS``; return ``target``.

    ``about`` and ``half`` are for a folder, see ``Vocoder.save_pretrained``.

    Raises:
        ValueError: it cannot be expressed there.
    """
    generator, mel = source.build()
    if to == "mindslab":
        from univnet.weights.mindslab import to_mindslab, write_mindslab

        step = int(source.about.get("updates", 0))
        return write_mindslab(target, to_mindslab(generator, source.build_discriminator(), mel, step))
    vocoder = Vocoder(generator, mel)
    if to == "transformers":
        from univnet.weights.transformers_folder import write_transformers

        return write_transformers(target, vocoder.generator, mel)
    if to == "folder":
        vocoder.about = source.about
        vocoder.save_pretrained(target, about, half)
        save_discriminator(target, source.discriminator, source.discriminator_config, half)
        return target
    from univnet.weights.graph import write_onnx, write_program

    return write_onnx(target, vocoder) if to == "onnx" else write_program(target, vocoder)
