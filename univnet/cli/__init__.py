"""One entry for every verb: ``univnet VERB`` (or ``scripts/VERB.py``)."""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NamedTuple

from univnet.cli.messages import UsageError, complain


class Verb(NamedTuple):
    """What the command line can do: ``run`` takes the arguments after the verb."""

    run: Callable[[Sequence[str]], None]
    summary: str


def _fit(argv: Sequence[str]) -> None:
    from univnet.cli.training import run

    run("fit", argv)


def _validate(argv: Sequence[str]) -> None:
    from univnet.cli.training import run

    run("validate", argv)


def _find_lr(argv: Sequence[str]) -> None:
    from univnet.cli.find_lr import run

    run(argv)


def _synthesize(argv: Sequence[str]) -> None:
    from univnet.cli.synthesize import run

    run(argv)


def _export(argv: Sequence[str]) -> None:
    from univnet.cli.export import run

    run(argv)


def _find_batch_size(argv: Sequence[str]) -> None:
    from univnet.cli.find_batch_size import run

    run(argv)


def _demo(argv: Sequence[str]) -> None:
    from univnet.cli.demo import run
    from univnet.cli.training import told_plainly

    with told_plainly():
        run(argv)


def _benchmark(argv: Sequence[str]) -> None:
    from univnet.cli.benchmark import run

    run(argv)


VERBS = {
    "fit": Verb(_fit, "train, or go on training (--ckpt_path last)"),
    "validate": Verb(_validate, "measure a checkpoint (--ckpt_path FILE)"),
    "find-lr": Verb(_find_lr, "find learning rates for both players"),
    "find-batch-size": Verb(_find_batch_size, "find the batch size that fits into memory, or trains fastest"),
    "synthesize": Verb(_synthesize, "make audio from recordings or mel-spectrograms"),
    "export": Verb(_export, "write a vocoder for transformers, the reference's code, ONNX, torch.export, or the hub"),
    "benchmark": Verb(_benchmark, "measure training, inference, the LVC or the loader against plain peers"),
    "demo": Verb(_demo, "train a small vocoder on the speech in data/demo and let it speak"),
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb.

    A mistake of the user's ends in one line on stderr and exit status 2; ``UNIVNET_TRACEBACK=1`` shows where it arose.
    """
    verb, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if verb in ("", "-h", "--help"):
        print(usage(), file=sys.stdout if verb else sys.stderr)
        sys.exit(0 if verb else 2)
    try:
        if verb not in VERBS:
            raise UsageError(f"there is no verb {verb!r}; give one of {', '.join(VERBS)}")
        VERBS[verb].run(rest)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # as a shell would have it
    except (UsageError, ValueError, OSError) as error:  # anything else is our mistake and keeps its traceback
        if os.environ.get("UNIVNET_TRACEBACK"):
            raise
        complain(error)


def usage() -> str:
    """Return the verbs, a line each."""
    width = max(map(len, VERBS))
    verbs = [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(["usage: univnet VERB …; see univnet VERB --help", "", *verbs])
