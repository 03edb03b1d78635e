"""One part of the report, in a process of its own: ``python -m univnet.benchmarks.gpu.child MODULE SCALE FILE``."""

import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from univnet.benchmarks.gpu.scale import Row, Scale


def guarded(case: str, measure: Callable[..., Row], *arguments: Any) -> Row:
    """Return what ``measure(*arguments)`` found, the case first; or its error in a line, so that others go on."""
    try:
        return {"case": case, **measure(*arguments)}
    except Exception as error:
        torch.cuda.empty_cache()
        lines = str(error).strip().splitlines() or [""]
        return {"case": case, "error": f"{type(error).__name__}: {lines[0]}"}


def write_rows(rows: Iterator[Row], path: Path) -> None:
    """Append each row to a file as it comes: what is found until a stop stays."""
    with path.open("a") as file:
        for row in rows:
            print(json.dumps(row, default=str), file=file, flush=True)


if __name__ == "__main__":
    module, plain, target = sys.argv[1:]
    given: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(plain).items()
    }
    scale = Scale(**given)
    if scale.cuda:
        torch.cuda.set_device(scale.device)
    write_rows(import_module(module).rows(scale), Path(target))
