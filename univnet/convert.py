"""Weights in plain form, without weight normalization, and to and from ``transformers.UnivNetModel``."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.utils import parametrize

from univnet.models import Generator

# Our argument: UnivNetConfig's. The defaults are the same.
_CONFIG_NAMES = {
    "n_mels": "num_mel_bins",
    "noise_channels": "model_in_channels",
    "channels": "model_hidden_channels",
    "strides": "resblock_stride_sizes",
    "leaky_slope": "leaky_relu_slope",
    "predictor_channels": "kernel_predictor_hidden_channels",
    "predictor_blocks": "kernel_predictor_num_blocks",
    "predictor_kernel_size": "kernel_predictor_conv_size",
    "predictor_dropout": "kernel_predictor_dropout",
}
# Theirs lists one of these a block, ours has one for all blocks.
_PER_BLOCK_NAMES = {"kernel_size": "resblock_kernel_sizes", "dilations": "resblock_dilation_sizes"}


def plain_state_dict(module: nn.Module) -> dict[str, Tensor]:
    """Copy a module's weights with weight normalization folded in; the module itself is left as it is."""
    state = {name: tensor for name, tensor in module.state_dict().items() if ".parametrizations." not in name}
    for name, submodule in module.named_modules():
        if parametrize.is_parametrized(submodule, "weight"):
            state[f"{name}.weight"] = submodule.weight
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def load_plain_state_dict(module: nn.Module, state_dict: Mapping[str, Tensor]) -> None:
    """Load weights without weight normalization into a module with or without it.

    Args:
        module: Any module whose weight-normalized parameters are called ``weight``, as all of ours are.
        state_dict: What ``plain_state_dict`` returns. The module's own state dict loads too.

    Raises:
        ValueError: A filter is all zeros: weight normalization has no such weight. Call ``remove_weight_norm`` first.
        RuntimeError: Names or shapes do not fit (torch's own message, which lists them all).
    """
    state = dict(state_dict)
    for name, submodule in module.named_modules():
        weight = state.get(f"{name}.weight")
        if weight is None or not parametrize.is_parametrized(submodule, "weight"):
            continue
        parametrizations: Any = submodule.parametrizations
        gain, direction = parametrizations.weight[0].right_inverse(weight)
        if not gain.all():
            raise ValueError(f"{name}.weight has a filter of zeros, which weight normalization cannot express.")
        del state[f"{name}.weight"]
        state[f"{name}.parametrizations.weight.original0"] = gain
        state[f"{name}.parametrizations.weight.original1"] = direction
    module.load_state_dict(state)


def to_transformers(generator: Generator) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Express a generator as ``transformers.UnivNetModel``.

    Returns:
        Arguments of ``UnivNetConfig``, and the state dict for ``UnivNetModel(UnivNetConfig(**arguments))``.

    Raises:
        ValueError: ``noise_channels`` and ``predictor_channels`` differ, where transformers knows one number for both.
    """
    config = generator.config
    if config["noise_channels"] != config["predictor_channels"]:
        raise ValueError(
            "transformers.UnivNetModel needs noise_channels and predictor_channels to be equal, got "
            f"{config['noise_channels']} and {config['predictor_channels']}."
        )
    arguments = {theirs: config[ours] for ours, theirs in _CONFIG_NAMES.items()}
    arguments |= {theirs: [config[ours] for _ in config["strides"]] for ours, theirs in _PER_BLOCK_NAMES.items()}
    return arguments, plain_state_dict(generator)


def from_transformers(source: Any, state_dict: Mapping[str, Tensor] | None = None) -> Generator:
    """Build a (weight-normalized) generator from ``transformers.UnivNetModel``.

    Args:
        source: The model; or, with ``state_dict``, its ``UnivNetConfig`` or the mapping read from its ``config.json``.
        state_dict: The model's state dict, with or without weight normalization.

    Raises:
        ValueError: The blocks differ in kernel size or dilations, or a filter is all zeros.
        RuntimeError: The weights do not fit the configuration.
    """
    if state_dict is None:
        source, state_dict = source.config, source.state_dict()
    generator = Generator(**generator_config(source if isinstance(source, Mapping) else source.to_dict()))
    load_plain_state_dict(generator, state_dict)
    return generator


def generator_config(theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``Generator``'s arguments for what a ``UnivNetConfig`` holds.

    Raises:
        ValueError: The blocks differ in kernel size or dilations, or are no lists.
    """
    config = {ours: theirs[name] for ours, name in _CONFIG_NAMES.items() if name in theirs}
    for ours, name in _PER_BLOCK_NAMES.items():
        if name in theirs:
            if not isinstance(theirs[name], list | tuple) or not theirs[name]:
                raise ValueError(f"{name} must be a list with an element per block, got {theirs[name]!r}.")
            first, *others = theirs[name]
            if any(other != first for other in others):
                raise ValueError(f"{name} must be the same for every block, got {theirs[name]}.")
            config[ours] = first
    return config
