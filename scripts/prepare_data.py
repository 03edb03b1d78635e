"""Prepare a corpus to train on: ``python scripts/prepare_data.py CORPUS --output DIR``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["prepare", *sys.argv[1:]])
