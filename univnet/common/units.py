"""Numbers with units, as people write them."""

import re

_BYTES = {"": 1, "B": 1} | {
    f"{prefix}{binary}{b}": (1024 if binary else 1000) ** power
    for power, prefix in enumerate("KMGT", 1)
    for binary in ("", "I")
    for b in ("", "B")
}


def byte_count(text: str | int) -> int:
    """Return a number of bytes written like ``3GiB`` (3 · 1024³), ``1.5 GB`` (1.5 · 1000³) or ``500000``.

    Raises:
        ValueError: it is not.
    """
    match = re.fullmatch(r"([\d.]+)\s*([A-Za-z]*)", str(text).strip())
    try:
        number, unit = float(match[1]), _BYTES[match[2].upper()]  # type: ignore[index]
    except (TypeError, ValueError, KeyError):
        raise ValueError(f"{text}: expected a number of bytes, such as 3GiB or 500MB") from None
    return int(number * unit)
