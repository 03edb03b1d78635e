"""How the threads of a verb wait for each other."""

import os
import sys
from collections.abc import MutableMapping

# What a user may have set: of the standard, of GNU's OpenMP, of Intel's and LLVM's.
_CHOICES = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
# GNU's OpenMP, which torch's packages for Linux bring, then spins some microseconds: to sleep at once costs three
# tenths of the speed of an idle machine. The others sleep at once.
_SLEEP_SOON = {"OMP_WAIT_POLICY": "passive", "GOMP_SPINCOUNT": "2000"}


def sleep_while_waiting(environment: MutableMapping[str, str] = os.environ) -> None:
    """Let threads that wait for others soon sleep, not spin, unless the user has chosen how they wait.

    OpenMP's threads spin at the end of each parallel piece of work until the last has come. If other programs want
    the cores, too, they spin in the time in which that last one could run, and training all but stands still
    (docs/speed.md). OpenMP reads this when torch is loaded, and once: later it is left alone.
    """
    if "torch" not in sys.modules and not any(name in environment for name in _CHOICES):
        environment.update(_SLEEP_SOON)
