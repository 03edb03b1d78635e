"""What the README lets people hear and see: ``python docs/sounds.py`` writes docs/sounds, in the repository's folder.

An excerpt of a recording that the vocoder in data/pretrained was not trained on, what the vocoder makes of its
mel-spectrogram, and a picture of both.
"""

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from univnet import Vocoder
from univnet.audio import read_segment
from univnet.audio.writing import write_audio
from univnet.cli.synthesize import synthesize

SOURCE = Path("data/demo/ru_0518.flac")
START, SECONDS = 0.2, 3.8  # from before the first word to the first pause
FOLDER = Path("docs/sounds")


def main(folder: Path = FOLDER) -> None:
    """Write ``recording.wav``, ``univnet.wav`` and ``univnet.png``."""
    vocoder = Vocoder.from_pretrained("demo")
    rate = vocoder.sample_rate
    recording = folder / "recording.wav"
    write_audio(recording, read_segment(SOURCE, round(START * rate), round(SECONDS * rate), rate), rate)
    with TemporaryDirectory() as made:
        sound = synthesize(vocoder, recording, Path(made), picture=True)
        (folder / "univnet.wav").write_bytes(sound.read_bytes())
        Image.open(sound.with_suffix(".png")).quantize().save(folder / "univnet.png")  # a third of the bytes


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
