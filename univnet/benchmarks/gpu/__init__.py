"""The report of a machine's first hour with an accelerator: what is right there, and how fast; ``make gpu-report``."""
