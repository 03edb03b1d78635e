"""Write a vocoder for other software: ``python scripts/export.py --checkpoint FILE --to onnx --output FILE``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
