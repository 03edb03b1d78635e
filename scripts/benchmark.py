"""Measure: ``python scripts/benchmark.py train|infer|lvc|loader [--size c16] [--output FILE]``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["benchmark", *sys.argv[1:]])
