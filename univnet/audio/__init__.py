"""Sound in and out: the one mel spectrogram, and reading, resampling and writing files."""

from univnet.audio.io import AudioReader, audio_length, read_segment, shown, write_audio
from univnet.audio.mel import LogMelSpectrogram
from univnet.audio.resampling import resampled_length

__all__ = [
    "AudioReader",
    "LogMelSpectrogram",
    "audio_length",
    "read_segment",
    "resampled_length",
    "shown",
    "write_audio",
]
