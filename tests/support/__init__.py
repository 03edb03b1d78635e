"""What several tests share: toy models, small configurations, comparisons, and the programs that they start."""

from pathlib import Path

ROOT = Path(__file__).parents[2]
PROGRAMS = Path(__file__).parent  # beside this file: what runs in processes of its own
