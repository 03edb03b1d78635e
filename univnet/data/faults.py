"""Recordings that turn out bad while training: their crops are drawn elsewhere, named, counted, and limited."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch.utils.data import default_collate

log = logging.getLogger(__name__)

TRIES = 10  # crops tried for one draw before training ends
_RECENT = 1000  # crops over which the share is taken


class FaultyDataError(OSError):
    """Too much of the data cannot be read."""


class Fault(ValueError):  # noqa: N818 (it is caught and counted)
    """A recording that cannot be used now, whatever the check found: ``path``, and why in the message."""

    def __init__(self, path: str, why: str) -> None:
        super().__init__(path, why)
        self.path, self.why = path, why


def first_that_reads(read: Callable[[int], dict[str, Any]], tries: int) -> dict[str, Any]:
    """The item of the first attempt that can be read, with the faults before it as ``"faults"``, if there were any.

    Args:
        read: gives the item of an attempt: 0, 1, 2, …
        tries: 1 raises what is wrong with the first.

    Raises:
        ValueError: with one try, what was wrong.
        FaultyDataError: no attempt could be read.
    """
    faults: list[tuple[str, str]] = []
    for attempt in range(tries):
        try:
            item = read(attempt)
        except Fault as fault:
            if tries == 1:
                raise ValueError(fault.why) from fault
            faults.append((fault.path, fault.why))
        else:
            return {**item, "faults": faults} if faults else item
    last = faults[-1][1].rstrip(".")
    raise FaultyDataError(f"{tries} recordings in a row could not be read; the last: {last}: are the data still there?")


def collate(items: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """A batch; the items' faults, if there are any, in one list, (path, why) each."""
    faults = [fault for item in items for fault in item.get("faults", ())]
    batch = default_collate([{name: value for name, value in item.items() if name != "faults"} for item in items])
    return {**batch, "faults": faults} if faults else batch


@dataclass(frozen=True)
class FaultCount:
    """What has been found so far in a run's training batches. Part of its checkpoints, so that it goes on exactly.

    Attributes:
        faulty: crops that had to be drawn elsewhere, counted once for each recording that was tried.
        share: of about the last thousand crops, those.
        named: the recordings that have been named.
    """

    faulty: int = 0
    share: float = 0.0
    named: tuple[str, ...] = ()

    def after(self, crops: int, faults: Sequence[tuple[str, str]], most: float) -> "FaultCount":
        """Count a batch; log each recording once.

        Raises:
            FaultyDataError: the share has passed ``most``.
        """
        share = self.share + (len(faults) - self.share * crops) / _RECENT
        count = replace(self, faulty=self.faulty + len(faults), share=max(share, 0.0))
        for path, why in self._new(faults):
            log.warning("%s Its crops are drawn elsewhere from now on, wherever it cannot be read.", why)
            count = replace(count, named=(*count.named, path))
        if faults and count.share > most:
            raise FaultyDataError(
                f"More than {most:.3g} of the last {_RECENT} crops could not be read ({count.faulty} since the start, "
                f"of {len(count.named)} recordings; the last: {faults[-1][1].rstrip('.')}): mend or remove the "
                "recordings, or allow more with data.max_faulty."
            )
        return count

    def _new(self, faults: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
        seen = set(self.named)
        for path, why in faults:
            if path not in seen:
                seen.add(path)
                yield path, why
