"""What the command line says: mistakes and warnings in one line each, without a traceback, and nothing of no use."""

import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

EXIT_STATUS = 2  # of the user's mistakes; univnet.cli.runs.failures has the machine's
_NOWHERE = "/univnet"  # in the place of a warning's file
_LONGEST = 2000  # characters of a message: some quote a value of any size

# Patterns of what Lightning and its dependencies say that is of no use here, and why not.
HIDDEN_MESSAGES = (
    "LeafSpec",  # torch's and Lightning's own affair
    "args parameter is intended to run from within Python",  # univnet.cli takes the verb off first
    "Checkpoint directory .* exists and is not empty",  # a run resumed goes on in its folder
    "smaller than the logging interval",  # that counts micro-batches of an epoch; here updates of the run count
    "Our suggested max number of worker",  # of torch; AudioDataModule says so itself, and names the option
    "does not have many workers",  # data.num_workers is the user's choice
    "callbacks used to create the checkpoint need to be provided",  # one's own options have changed since
    "The dirpath has changed from",  # a new folder has a best checkpoint of its own
    "Total length of .* across ranks is zero",  # data.validation=0 asks for that
    "was called without a model",  # OnExceptionCheckpoint: no other run than this one's is meant
    "is set, but there is no last checkpoint available",
    "litlogger",  # advertisement
    "litmodels",
    "Seed set to",
    "TPU available",
)
_HIDDEN = re.compile("|".join(HIDDEN_MESSAGES), re.DOTALL)
_UNION = "Does not validate against any of the Union subtypes"
_REASON = re.compile(
    r"^ *- (?!Does not validate|Expected an? |Not (?:a|of) |Problem with|a class path|a dict )(.+)$", re.M
)
_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.seed")


class UsageError(Exception):
    """A mistake in what the user asked for; its message names the mistake and the mend."""


@contextmanager
def plain_messages() -> Iterator[None]:
    """Leave out messages of no use, and say warnings in one line each."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    ours, handler = logging.getLogger("univnet"), logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(_Plain())
    usual_format, usual_show = warnings.formatwarning, warnings.showwarning
    with warnings.catch_warnings():
        for text in HIDDEN_MESSAGES:
            warnings.filterwarnings("ignore", message=f"(?s).*{text}")
        for logger in loggers:
            logger.addFilter(_is_of_use)
        ours.addHandler(handler)
        warnings.formatwarning = _format_warning
        # Without its place: Lightning, once imported, has a form of its own for warnings from its files.
        warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: usual_show(
            message, category, _NOWHERE, 0, file
        )
        try:
            yield
        finally:
            warnings.formatwarning = usual_format
            ours.removeHandler(handler)
            for logger in loggers:
                logger.removeFilter(_is_of_use)


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return _format_warning(record.getMessage()).rstrip("\n")


def _is_of_use(record: logging.LogRecord) -> bool:
    return not _HIDDEN.search(record.getMessage())


def _format_warning(message: Warning | str, *_: Any, **__: Any) -> str:
    return f"univnet: warning: {one_line(str(message))}\n"


def exit_with_error(error: BaseException | str, status: int = EXIT_STATUS) -> NoReturn:
    """Print one line on stderr and exit. A rank of a multi-process run other than the first says which it is."""
    rank = os.environ.get("LOCAL_RANK", "0")  # set by Lightning for the processes that it starts
    who = "univnet: error" if rank == "0" else f"univnet: rank {rank}: error"
    print(f"{who}: {one_line(str(error))}", file=sys.stderr)
    sys.exit(status)


def one_line(message: str) -> str:
    """Return ``message`` on one line.

    Of one that quotes a loader process's traceback it is what that process said, and of one about a package that is not
    installed, how to install it.
    """
    if missing := re.search(r"Requirement '([^']+)' not met", message):
        return f"this needs {missing[1]}: pip install '{missing[1]}'"
    if "Original Traceback" in message:
        message = re.sub(r"^[\w.]+(Error|Exception): ", "", message.strip().splitlines()[-1])
    line = " ".join(message.split())
    return line if len(line) <= _LONGEST else f"{line[:_LONGEST]} …"


def reason_of_union(message: str) -> str:
    """Return the reason itself of a ``message`` that says so for every class that an argument may be of."""
    found = _REASON.search(message) if message.startswith(_UNION) else None
    return found[1] if found else message


def parsing_mistake(message: str) -> str:
    """Return what jsonargparse's ``message`` says, for a reader who does not know its types."""
    key, nested = (
        r'Parser key "([^"]*)":',
        r"Problem with given class_path '[^']*':\s*(.+?)\s*(?:\n\s*- |\n *Given value|$)",
    )
    if _UNION in message:
        where = re.search(key, message)
        found = [*re.finditer(nested, message, re.DOTALL)]
        what, inside = (found[-1][1], message[found[-1].start() :]) if found else (_UNION, message)
        if _UNION in what:
            types, value = (re.search(p, inside) for p in (r"Subtypes: [\[(](.*)[\])]", r"Given value: (.*)"))
            one_of = f"expected one of {types[1] if types else '?'}, got {value[1] if value else '?'}"
            what = what[: what.index(_UNION)] + one_of
        message = f"{where[0] if where else ''} {what}"
    message = re.sub(key, r"\1:", message)
    message = re.sub(r"<class '(?:[\w.]*\.)?(\w+)'>", r"\1", message).replace("NoneType", "null")
    message = re.sub(
        r"'\w+' object has no attribute 'keys'", "init_args must be a mapping of arguments, or left out", message
    )
    message = re.sub(r"Expected a typing\.Literal\[(.*?)\]\. Got value: ", r"expected one of \1, got ", message)
    message = re.sub(r"Expected an? (\S+?)\.? Got value: ", r"expected \1, got ", message)
    return one_line(re.sub(r", got None$", ", got null", message)).rstrip(".")
