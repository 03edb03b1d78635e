"""The mean of two vocoders' weights, as a folder to publish: ``python docs/mean.py FIRST SECOND SHARE FOLDER``.

SHARE, from 0 to 1, is the second's. Vocoders that were trained on from the same weights, on different losses, can be
better together than each alone (Wortsman et al. 2022, arXiv 2203.05482). FIRST and SECOND are what ``univnet synthesize
--checkpoint`` takes; of checkpoints, the averaged weights count. The discriminator is the first's.
"""

import sys
from pathlib import Path

from univnet import Vocoder
from univnet.convert import plain_state_dict
from univnet.weights.folder import save_discriminator
from univnet.weights.sources import read_weights


def main(first: str, second: str, share: float, folder: Path) -> None:
    """Write the folder."""
    ours = read_weights(first, "auto")
    generator, mel = ours.build()
    one, other = (plain_state_dict(each) for each in (generator, read_weights(second, "auto").build()[0]))
    vocoder = Vocoder(generator, mel)
    vocoder.generator.load_state_dict({name: weight.lerp(other[name], share) for name, weight in one.items()})
    vocoder.save_pretrained(folder, ours.about)
    save_discriminator(folder, ours.discriminator, ours.discriminator_config)


if __name__ == "__main__":
    main(*sys.argv[1:3], float(sys.argv[3]), Path(sys.argv[4]))
