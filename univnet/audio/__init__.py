"""The mel-spectrogram, and reading, resampling and writing of audio files."""

from univnet.audio.io import audio_length, read_segment, resampled_length, write_audio
from univnet.audio.mel import LogMelSpectrogram

__all__ = ["LogMelSpectrogram", "audio_length", "read_segment", "resampled_length", "write_audio"]
