"""Writing safetensors files whole or not at all."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path

from torch import Tensor

from univnet.common.files import written_whole


def write_safetensors(path: str | PathLike[str], state: Mapping[str, Tensor], half: bool = False) -> Path:
    """Write ``state`` to ``path``, readable for whom the user's other files are; return the path.

    With ``half``, floating-point tensors are in 16 bits (float16): half the size, rounded to 3 digits.

    Raises:
        ValueError: a value is larger than float16 holds.
    """
    from safetensors.torch import save

    state = _halved(state) if half else state
    content = save({k: v.detach().cpu().contiguous() for k, v in state.items()}, metadata={"format": "pt"})
    with written_whole(path) as partial:
        partial.write_bytes(content)
    return Path(path)


def _halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    half = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in state.items()}
    for name, tensor in half.items():
        if not tensor.isfinite().all():
            raise ValueError(f"{name} has values that float16 cannot hold: write the weights in full")
    return half
