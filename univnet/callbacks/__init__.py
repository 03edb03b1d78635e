"""What is seen and heard of a training run."""

from univnet.callbacks.progress import UpdateProgressBar
from univnet.callbacks.samples import ValidationSamples
from univnet.callbacks.throughput import AudioThroughput

__all__ = ["AudioThroughput", "UpdateProgressBar", "ValidationSamples"]
