"""From audio files to batches: what files there are, what is read of them, and in which order."""

from univnet.data.augment import Augment
from univnet.data.check import check_files
from univnet.data.datamodule import AudioDataModule
from univnet.data.dataset import SegmentDataset, UtteranceDataset
from univnet.data.faults import FaultyDataError
from univnet.data.loader import EpochSampler, ResumableDataLoader
from univnet.data.manifest import AudioFile, read_manifest, split_files
from univnet.data.scan import scan_folder

__all__ = [
    "AudioDataModule",
    "AudioFile",
    "Augment",
    "EpochSampler",
    "FaultyDataError",
    "ResumableDataLoader",
    "SegmentDataset",
    "UtteranceDataset",
    "check_files",
    "read_manifest",
    "scan_folder",
    "split_files",
]
