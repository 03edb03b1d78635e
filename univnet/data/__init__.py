"""From audio files to batches: what files there are, what is read of them, and in which order."""

from univnet.data.datamodule import AudioDataModule
from univnet.data.dataset import SegmentDataset, UtteranceDataset
from univnet.data.loader import EpochSampler, ResumableDataLoader
from univnet.data.manifest import AudioFile, check_files, read_manifest, scan_folder, split_files

__all__ = [
    "AudioDataModule",
    "AudioFile",
    "EpochSampler",
    "ResumableDataLoader",
    "SegmentDataset",
    "UtteranceDataset",
    "check_files",
    "read_manifest",
    "scan_folder",
    "split_files",
]
