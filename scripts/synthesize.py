"""Make audio with a trained vocoder: ``python scripts/synthesize.py --checkpoint FILE --output DIR INPUT…``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["synthesize", *sys.argv[1:]])
