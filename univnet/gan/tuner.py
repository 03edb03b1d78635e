"""What to find out before training: learning rates and the batch size."""

from lightning.pytorch import Trainer


class Tuner:
    """Find learning rates and the batch size of a :class:`~univnet.gan.GANModule`, as Lightning's ``Tuner`` does.

    Args:
        trainer: the trainer that is to train the module; both are as before after every search, but for what was found.
    """

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer
