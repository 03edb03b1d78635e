"""Numbers with units are read as people mean them."""

import pytest

from univnet.common.units import byte_count


def test_byte_counts() -> None:
    texts = {"3GiB": 3 * 2**30, "500MB": 5 * 10**8, "1.5 kB": 1500, "2k": 2000, "7": 7, "1 TiB": 2**40, "64mib": 2**26}
    assert {text: byte_count(text) for text in texts} == texts
    assert byte_count(12) == 12
    for wrong in ("GiB", "3 GiBs", "", "1.2.3GB", "-4", -4):
        with pytest.raises(ValueError, match="expected a number of bytes"):
            byte_count(wrong)
