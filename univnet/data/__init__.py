"""From audio files to batches: what files there are, what is read of them, and in which order."""

from typing import TYPE_CHECKING

from univnet.common.lazy import lazily

if TYPE_CHECKING:
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

# Imported when first asked for: the loader serves any GAN, without what reads audio.
_HOMES = {
    "AudioDataModule": "univnet.data.datamodule",
    "AudioFile": "univnet.data.manifest",
    "Augment": "univnet.data.augment",
    "EpochSampler": "univnet.data.loader",
    "FaultyDataError": "univnet.data.faults",
    "ResumableDataLoader": "univnet.data.loader",
    "SegmentDataset": "univnet.data.dataset",
    "UtteranceDataset": "univnet.data.dataset",
    "check_files": "univnet.data.check",
    "read_manifest": "univnet.data.manifest",
    "scan_folder": "univnet.data.scan",
    "split_files": "univnet.data.manifest",
}

__getattr__, __dir__ = lazily(__name__, _HOMES)
