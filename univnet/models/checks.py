"""Checks before training: do the networks fulfil the contracts, and do they fit each other?"""

from inspect import get_annotations, signature

from univnet.models.base import BaseDiscriminator, BaseGenerator


def misfits(generator: BaseGenerator, n_mels: int, hop_length: int) -> list[str]:
    """Return the attributes that the generator lacks, or how it does not fit a mel-spectrogram of these sizes."""
    missing = [name for name in get_annotations(BaseGenerator) if not hasattr(generator, name)]
    if missing:
        return [f"{type(generator).__name__} must set {' and '.join(missing)}: see univnet.models.BaseGenerator"]
    wrong = []
    if generator.hop_length != hop_length:
        strides = generator.config.get("strides")
        hop = f"the product of generator.strides {'·'.join(map(str, strides))}" if strides else "generator.hop_length"
        wrong.append(f"mel.hop_length is {hop_length} but {hop} is {generator.hop_length}: make them equal")
    if generator.n_mels != n_mels:
        wrong.append(f"generator.n_mels is {generator.n_mels} but mel.n_mels is {n_mels}: make them equal")
    return wrong


def unfit_parts(discriminator: BaseDiscriminator, with_features: bool) -> list[str]:
    """Return a ``forward`` that training would ignore, or the parts that cannot return the features a loss needs."""
    kind = type(discriminator)
    defined = [{"forward", "parts"} & vars(base).keys() for base in kind.__mro__]
    if "parts" not in next(filter(None, defined)):  # the most derived class to define either
        return [f"{kind.__name__} defines forward() without parts(), which is what training runs: define both"]
    if not with_features:
        return []
    parts = discriminator.parts().items()
    wrong = [name for name, part in parts if "with_features" not in signature(part.forward).parameters]
    return [f"the loss needs features, but {', '.join(wrong)} of the discriminator cannot return any"] * bool(wrong)
