"""Parts for the tests of the report's frame: one that is right, and others that fail in their own ways."""

import os
import sys
import time
from collections.abc import Iterator
from typing import Any

HOW = os.environ.get("REPORT_PART", "")


def rows(scale: Any) -> Iterator[dict[str, Any]]:
    yield {"case": "first", "value": 1.5, "right": True}
    if HOW == "raises":
        raise RuntimeError("the device has gone")
    if HOW == "hangs":
        time.sleep(600)
    print("not a row", file=sys.stderr)
    yield {"case": "second|one", "device": scale.device, "channels": scale.channels}
