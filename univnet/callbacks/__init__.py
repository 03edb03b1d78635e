"""Callbacks: a progress bar, checkpoints, and what loggers show of a training run."""

from univnet.callbacks.last_checkpoint import LastCheckpoint
from univnet.callbacks.progress import UpdateProgressBar
from univnet.callbacks.samples import ValidationSamples
from univnet.callbacks.throughput import AudioThroughput
from univnet.callbacks.validation_metrics import ValidationMetrics

__all__ = ["AudioThroughput", "LastCheckpoint", "UpdateProgressBar", "ValidationMetrics", "ValidationSamples"]
