"""Preparing a corpus once: resampled, levelled, checked, measured, split, and listed in a manifest."""

from univnet.data.preparing.download import DOWNLOADS, SETS, download
from univnet.data.preparing.recording import Record, Settings
from univnet.data.preparing.run import prepare_recordings
from univnet.data.preparing.tables import SPLITS, assign_splits, write_tables

__all__ = [
    "DOWNLOADS",
    "SETS",
    "SPLITS",
    "Record",
    "Settings",
    "assign_splits",
    "download",
    "prepare_recordings",
    "write_tables",
]
