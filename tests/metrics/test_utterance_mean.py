"""Metrics as torchmetrics has them: means, undefined values. Two processes are in tests/callbacks."""

import numpy as np
import pytest
import torch

from univnet.metrics import METRICS, UtteranceMean


def test_the_mean_over_batches_is_that_of_the_function(speech: np.ndarray) -> None:
    real = torch.from_numpy(speech[: 6 * 8000]).reshape(6, 1, 8000)
    fake = real.roll(40, dims=2)
    mean = UtteranceMean(METRICS["stft_loss"], 16000)
    mean.update(fake[:4], real[:4])
    mean.update(fake[4:, 0], real[4:, 0])
    expected = np.mean([METRICS["stft_loss"](f, r, 16000) for f, r in zip(fake, real, strict=True)])
    assert float(mean.compute()) == pytest.approx(expected, rel=1e-6)
    assert not mean.higher_is_better
    mean.reset()
    assert mean.count == 0


def test_undefined_values_are_left_out_and_counted(speech: np.ndarray) -> None:
    real = torch.from_numpy(speech[16000:32000])[None, None]
    mean = UtteranceMean(METRICS["f0"], 16000)
    mean.update(torch.zeros_like(real), real)
    assert torch.isnan(mean.compute())
    mean.update(real, real)
    assert (float(mean.compute()), int(mean.count), int(mean.undefined)) == (0.0, 1, 1)
