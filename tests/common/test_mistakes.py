"""All mistakes are named in one message."""

import pytest

from univnet.common.mistakes import Mistakes


def test_all_mistakes_are_in_one_error() -> None:
    mistakes = Mistakes("Settings")
    mistakes.unless(1 > 2, "a must be larger")
    mistakes.unless(True, "b must be there")
    mistakes.add(["c must be named"])
    with pytest.raises(KeyError, match="Settings: a must be larger; c must be named"):
        mistakes.raise_all(KeyError)


def test_no_mistake_no_error() -> None:
    mistakes = Mistakes(Mistakes("x"))
    mistakes.unless(True, "never")
    mistakes.raise_all()
