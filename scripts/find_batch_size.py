"""Find the batch size to train with: ``python scripts/find_batch_size.py --config configs/univnet_c16.yaml …``."""

import sys

from univnet.cli import main

if __name__ == "__main__":
    main(["find-batch-size", *sys.argv[1:]])
