"""Prove and measure on a machine with a GPU: ``python scripts/gpu_report.py --device cuda --output DIR``."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # a lent machine may have this tree and no installed package

from univnet.benchmarks.gpu.command import main

if __name__ == "__main__":
    main()
