"""Averages of weights. Empty, so that a vocoder can read averages without importing Lightning."""
