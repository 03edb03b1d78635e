"""Fold weight normalization (Salimans & Kingma 2016, arXiv 1602.07868) into plain weights."""

from torch import nn
from torch.nn.utils import parametrize


def fold_weight_norm(network: nn.Module) -> None:
    """Replace weight-normed weights of ``network`` by plain ones (new parameters), in place.

    The output stays the same. A second call changes nothing.
    """
    for module in list(network.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight")
            for key, hook in list(module._load_state_dict_pre_hooks.items()):
                # torch leaves weight norm's hook behind, and with it the network cannot be pickled
                if "weight_norm" in getattr(getattr(hook, "hook", hook), "__qualname__", ""):
                    del module._load_state_dict_pre_hooks[key]
