"""Find learning rates: ``python scripts/find_lr.py --config configs/univnet_c16.yaml --data.root DIR``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["find-lr", *sys.argv[1:]])
