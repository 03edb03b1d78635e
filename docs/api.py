"""Write pages about every public name, from the docstrings: ``make docs``, or ``python docs/api.py FOLDER``.

A name is public if the ``__init__`` of a package lists it in ``__all__``, or if its module is in ``MODULES``.
"""

import sys
import warnings
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pdoc

import univnet

# Modules that users import from, beside the packages, and those that describe options which docstrings refer to.
MODULES = ["univnet.losses", "univnet.models.lvc", "univnet.gan.tuner.batch_size", "univnet.gan.tuner.tuner"]


def public_modules() -> list[str]:
    """Return the package and those below it that list public names, and ``MODULES``."""
    packages = ["univnet", *(each.name for each in walk_packages(univnet.__path__, "univnet.") if each.ispkg)]
    return [*(name for name in packages if hasattr(import_module(name), "__all__")), *MODULES]


def main(folder: str) -> None:
    """Write the pages; a warning is an error."""
    names = public_modules()
    for name in names:
        module = import_module(name)
        for public in getattr(module, "__all__", ()):
            getattr(module, public)  # names that are imported when first asked for
    pdoc.render.configure(docformat="google", footer_text=univnet.__doc__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        others = rf"!(?!({'|'.join(names)})$)"  # a module with the name of a function that it holds
        pdoc.pdoc(*names, others, output_directory=Path(folder))


if __name__ == "__main__":
    main(sys.argv[1])
