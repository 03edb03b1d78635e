"""The mel-spectrogram, and reading, resampling and writing of audio files."""

from univnet.audio.cache import FolderCache, MemoryCache
from univnet.audio.formats import MelFormat
from univnet.audio.io import AudioReader, ReadSegment, audio_length, read_segment, shown
from univnet.audio.mel import LogMelSpectrogram
from univnet.audio.resampling import resampled_length
from univnet.audio.writing import write_audio

__all__ = [
    "AudioReader",
    "FolderCache",
    "LogMelSpectrogram",
    "MelFormat",
    "MemoryCache",
    "ReadSegment",
    "audio_length",
    "read_segment",
    "resampled_length",
    "shown",
    "write_audio",
]
