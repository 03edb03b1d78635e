"""How the parser of a verb is had without running the verb: for completion, and for the tests of its help."""

import argparse

HAND_OVER = "--hand-over-the-parser"


class ParserHandedOver(Exception):  # noqa: N818
    """Raised where the arguments of a verb end with ``HAND_OVER``.

    Attributes:
        parser: the verb's.
    """

    def __init__(self, parser: argparse.ArgumentParser) -> None:
        super().__init__(parser.prog)
        self.parser = parser
