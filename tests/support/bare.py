"""Act as on a machine with torch and Lightning, but without what they do not need: ``python bare.py PYTEST-ARGUMENTS``.

A GPU is often lent so: no package index at hand, no soundfile, no librosa. Without arguments only the package's parts
are imported.
"""

import sys
from importlib import import_module
from importlib.machinery import ModuleSpec, PathFinder
from typing import Any

ABSENT = {
    *("soundfile", "_soundfile", "cffi", "librosa", "soxr", "jsonargparse", "docstring_parser", "typeshed_client"),
    *("hypothesis", "huggingface_hub", "safetensors", "transformers", "tensorboard", "matplotlib", "scipy"),
}
PARTS = ("univnet", "univnet.module", "univnet.data", "univnet.gan", "univnet.vocoder", "univnet.callbacks")


class _Finder:
    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        return None if name.partition(".")[0] in ABSENT else PathFinder.find_spec(name, path, target)


if __name__ == "__main__":
    sys.meta_path[sys.meta_path.index(PathFinder)] = _Finder
    for part in PARTS:
        import_module(part)
    for part in import_module("univnet.benchmarks.gpu.report").PARTS.values():
        import_module(part.module)
    assert not ABSENT & {name.partition(".")[0] for name in sys.modules}
    if sys.argv[1:]:
        import pytest

        sys.exit(pytest.main(sys.argv[1:]))
