"""The device of the tests in this folder.

They run on the CPU with the others, so that they cannot rot, and on CUDA with ``make test-gpu``, which needs pytest,
torch and Lightning only: no soundfile, no librosa, no installed package.
"""

import pytest
import torch


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    """The CPU, and the first GPU in tests marked ``gpu``."""
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device(request.param)
