"""Collect all mistakes in what a user gave, then raise once."""

from collections.abc import Iterable


class Mistakes:
    """The mistakes found so far in the arguments of ``owner``.

    Args:
        owner: who was given them, an object or a name: it begins the message.
    """

    def __init__(self, owner: object) -> None:
        self._owner = owner if isinstance(owner, str) else type(owner).__name__
        self._found: list[str] = []

    def unless(self, right: bool, mistake: str) -> None:
        """Note ``mistake`` (what must hold, and what was given) unless it is ``right``."""
        if not right:
            self._found.append(mistake)

    def add(self, mistakes: Iterable[str]) -> None:
        """Note ``mistakes`` that were found elsewhere."""
        self._found.extend(mistakes)

    def raise_all(self, kind: type[Exception] = ValueError) -> None:
        """Raise one error of this ``kind`` that names every mistake, if there are any."""
        if self._found:
            raise kind(f"{self._owner}: {'; '.join(self._found)}")
