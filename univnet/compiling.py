"""Let torch.compile make kernels of networks that train."""

import os
import shutil
import sys
from collections.abc import Iterable

import torch
from torch import nn

from univnet.errors import UsageError

GRAPHS = 128  # compiled graphs that the networks of one class may have between them: theirs × turns × batch sizes


def compile_networks(networks: Iterable[nn.Module], device: torch.device) -> None:
    """Have each network compiled when it first runs, and for every new shape of its input.

    State dicts keep their names. A copy or a pickle of a network is not compiled.

    Raises:
        UsageError: on the CPU without a C++ compiler.
    """
    compiler = os.environ.get("CXX") or ("clang++" if sys.platform == "darwin" else "g++")
    if device.type == "cpu" and not shutil.which(compiler):
        raise UsageError(
            f"compile=True needs a C++ compiler on the CPU, and there is no {compiler}: install it, name yours in the "
            f"environment variable CXX, or leave compile out"
        )
    import torch._dynamo.config as dynamo  # takes a second
    import torch._functorch.config as autograd

    dynamo.recompile_limit = max(dynamo.recompile_limit, GRAPHS)
    autograd.donated_buffer = False  # the scores of the fakes have two backward passes
    for network in networks:
        network.compile(dynamic=False)
