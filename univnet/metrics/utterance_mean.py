"""Any metric as torchmetrics has them: summed up over batches and processes."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from univnet.metrics.base import Measure


class UtteranceMean(Metric):
    """The mean of a metric over utterances; its sums are added up over all processes.

    Args:
        measure: the metric, such as ``METRICS["pesq"]``.
        sample_rate: of the audio it will be given, in Hz.
        **options: torchmetrics' own, such as ``sync_on_compute``.

    Attributes:
        total: sum of the values that are defined.
        count: how many those are.
        undefined: utterances for which the value is not (NaN); they are left out of the mean.

    Raises:
        MissingPackageError: the package that computes the metric is not installed.
    """

    full_state_update = False
    is_differentiable = False

    total: Tensor
    count: Tensor
    undefined: Tensor

    def __init__(self, measure: Measure, sample_rate: int, **options: Any) -> None:
        super().__init__(**options)
        measure.require()
        self.measure, self.sample_rate = measure, sample_rate
        self.add_state("total", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")
        self.add_state("undefined", torch.tensor(0), dist_reduce_fx="sum")

    @property
    def higher_is_better(self) -> bool:  # type: ignore[override]
        """Whether higher values are better."""
        return self.measure.better == "higher"

    def update(self, fake: Tensor, real: Tensor) -> None:
        """Add utterances: generated audio and recordings, both (batch, 1, samples) or (batch, samples)."""
        for generated, recording in zip(fake, real, strict=True):
            value = self.measure(generated, recording, self.sample_rate)
            if value != value:
                self.undefined += 1
            else:
                self.total += value
                self.count += 1

    def compute(self) -> Tensor:
        """Return the mean; NaN where no utterance has a value."""
        return self.total / self.count
