"""One entry for every verb: ``univnet VERB`` (or ``scripts/VERB.py``).

A verb is a module of this package with a function ``run(argv)``, and a line in ``VERBS``.
"""

import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple

from univnet.cli.messages import UsageError, exit_with_error, plain_messages
from univnet.cli.runs.failures import failure
from univnet.cli.runs.threads import sleep_while_waiting
from univnet.cli.runs.workers import end_workers_at_exit


class Verb(NamedTuple):
    """What the command line can do.

    Attributes:
        module: the module of this package whose ``run`` takes the arguments; imported when the verb is asked for.
        summary: what the verb does, on the line that ``univnet --help`` has for it.
        leading: arguments that ``run`` is given before the user's.
    """

    module: str
    summary: str
    leading: tuple[str, ...] = ()

    def run(self, argv: Sequence[str]) -> None:
        """Run the verb with the arguments that follow it."""
        import_module(f"{__name__}.{self.module}").run([*self.leading, *argv])


VERBS = {
    "prepare": Verb("prepare", "make a corpus ready to train on: resampled, checked, split, listed"),
    "fit": Verb("training", "train, or go on training (--ckpt_path last)", ("fit",)),
    "validate": Verb("training", "measure a checkpoint (--ckpt_path FILE)", ("validate",)),
    "find-lr": Verb("find_lr", "find learning rates for both players"),
    "find-batch-size": Verb("find_batch_size", "find the batch size that fits into memory, or trains fastest"),
    "synthesize": Verb("synthesize", "make audio from recordings or mel-spectrograms"),
    "export": Verb("export", "write a vocoder for transformers, the reference's code, ONNX, torch.export, or the hub"),
    "evaluate": Verb("evaluate", "measure how good vocoders sound, on the same recordings"),
    "benchmark": Verb("benchmark", "measure training, inference, the LVC or the loader against plain peers"),
    "demo": Verb("demo", "train a small vocoder on the speech in data/demo and let it speak"),
}


COMPLETION = "--print-completion"  # bash or zsh: what the shell reads to complete verbs and options with Tab


def main(argv: Sequence[str] | None = None) -> None:
    """Run a verb.

    A mistake of the user's ends in one line on stderr and exit status 2, a failure of the machine's (memory, disk, a
    process that was killed) in one line and 3; ``UNIVNET_TRACEBACK=1`` shows where it arose. docs/errors.md lists them.
    """
    sleep_while_waiting()  # before a verb's module loads torch
    end_workers_at_exit()
    verb, *rest = [*(sys.argv[1:] if argv is None else argv)] or [""]
    if verb in ("", "-h", "--help"):
        print(usage(), file=sys.stdout if verb else sys.stderr)
        sys.exit(0 if verb else 2)
    if verb == "--version":
        print(versions())
        return
    try:
        if verb == COMPLETION:
            from univnet.cli.help.completion import completion_script  # only now, as all that a verb needs

            with plain_messages():
                print(completion_script(rest[0] if rest else "", VERBS), end="")
            return
        if verb not in VERBS:
            from univnet.cli.help.nearest import nearest

            known = f"{', '.join(VERBS)}{nearest(verb, VERBS)}"
            raise UsageError(f"there is no verb {verb!r}; give one of {known}; see `univnet --help`")
        with plain_messages():
            VERBS[verb].run(rest)
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)  # as a shell would have it
    except Exception as error:
        told = failure(error)
        if told is None or os.environ.get("UNIVNET_TRACEBACK"):
            raise  # what is not told is our mistake and keeps its traceback
        exit_with_error(told.message, told.status)


def usage() -> str:
    """Return the verbs, one per line."""
    width = max(map(len, VERBS))
    verbs = [f"  {name:{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(["usage: univnet VERB …; see univnet VERB --help, univnet --version", "", *verbs])


def versions() -> str:
    """Return the versions of the package and of what it builds on, on one line."""
    from importlib.metadata import PackageNotFoundError, version  # only now: it takes a while to load

    found = []
    for package in ("univnet", "torch", "lightning"):
        try:
            found.append(f"{package} {version(package)}")
        except PackageNotFoundError:  # such as a checkout that is run where it lies
            found.append(f"{package} (not installed)")
    return ", ".join(found)
