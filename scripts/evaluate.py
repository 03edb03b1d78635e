"""Measure vocoders: ``python scripts/evaluate.py --data DIR --checkpoint FILE --wavs NAME=DIR --output DIR``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["evaluate", *sys.argv[1:]])
