"""Where trials of a batch size run."""

from typing import Any

import pytest

from univnet.gan.tuner import forked


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in this process, as with an accelerator, and not in children."""
    monkeypatch.setattr(forked, "available", lambda: False)
    monkeypatch.setattr("univnet.gan.tuner.sandbox.garbage_collection_cuda", lambda: None)  # slow, and for CUDA


@pytest.fixture(params=["child", "here"])
def where(request: Any) -> None:
    if request.param == "here":
        request.getfixturevalue("here")
