"""Weights in and out: published folders, other software's checkpoints, graphs for other runtimes."""
