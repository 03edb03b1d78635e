"""Audio files as Lightning wants them: one object that gives the training and validation batches."""

import os
import signal
import threading
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import torch
from lightning import LightningDataModule
from lightning.pytorch.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from univnet.audio import FolderCache, LogMelSpectrogram, MelFormat, MemoryCache, ReadSegment, read_segment
from univnet.common.processes import available_processors
from univnet.data.augment import Augment
from univnet.data.check import Check, check_files, warn_of_resampling
from univnet.data.crops import EPOCHS, Epoch
from univnet.data.dataset import SegmentDataset, Short, UtteranceDataset
from univnet.data.faults import TRIES, FaultCount, collate
from univnet.data.loader import EpochSampler, ResumableDataLoader
from univnet.data.manifest import AudioFile, read_manifest, split_files
from univnet.data.scan import scan_folder


class AudioDataModule(LightningDataModule):
    """Training segments and validation utterances from a folder or a manifest of recordings.

    Batches, on the module's device, for training and validation alike:
    ``{"audio": (batch, 1, samples), "mel": (batch, n_mels, samples / hop_length)}``; validation adds
    ``"name": list[str]``. Mels are computed on the device, of the neighbourhood a segment has in its recording, or
    read from the files that a manifest names. Training can stop and resume at any batch (``ResumableDataLoader``).

    An epoch covers the seconds of the recordings: one of n segments counts n times (``epoch``). A recording
    that cannot be read while training is named, and its crop drawn elsewhere (``max_faulty``). docs/data.md says what
    happens to which recording, mel and manifest.

    Args:
        root: a folder of recordings, searched at any depth; through links, too, for what libsndfile decodes.
        manifest: or a CSV or TSV with a column ``path``; optionally with ``speaker`` and ``mel`` (``read_manifest``).
        mel: default: ``LogMelSpectrogram()``. The files are resampled to its sample rate.
        segment_length: length of a training segment, in samples; a multiple of the mel's hop length.
        batch_size: segments in a training batch on each device; may be set between epochs or by a tuner.
        num_workers: reading processes for each loader.
        validation: share (float below 1) or number (int) of files to validate on; 0 for no validation.
        validation_manifest: or a manifest of the files to validate on; ``validation`` then counts for nothing.
        validation_seconds: seconds after which validation utterances are cut; None: they are not.
        short: "pad" extends recordings shorter than a segment with zeros, "skip" leaves them out of training. To
            validate on they are always extended.
        check: "full" decodes every file before training, repairs or leaves out the bad ones; "header" only opens them.
        seed: of the split, the order, and the segments' places.
        drop_last: leave out an epoch's last batch if it is not full. A batch that is the only one is kept.
        epoch: what an epoch covers. "seconds" has a recording of n segments n times, "files" each recording once,
            "speakers" as many segments as "seconds" but each speaker as often as any other.
        skip_silence: a segment that stays below so many dB of full scale, such as −50, is drawn at another place of its
            recording, up to ten times; None: never.
        augment: changes level, polarity or speed from draw to draw; None: nothing.
        max_faulty: share of the last thousand crops; training ends when more of them could not be read.
        cache: keeps recordings decoded in "memory" or in a folder; runs and ranks may share it. None: nothing is kept.
        mel_format: how the mels were made that a manifest names: a ``MelFormat``, or its name with changes, such as
            ``"tacotron2,sample_rate=16000"``. They are converted to ``mel``, and where their frames are centred, the
            audio is taken half a hop earlier. None: they are as ``mel`` makes them.

    Raises:
        ValueError: names every argument that does not fit; from ``setup``, no file is left for training.
        FileNotFoundError: from ``setup``, there is no such folder or manifest.
        NotADirectoryError: from ``setup``, ``root`` is a file.
    """

    def __init__(
        self,
        root: str | None = None,
        manifest: str | None = None,
        mel: LogMelSpectrogram | None = None,
        segment_length: int = 16384,
        batch_size: int = 32,
        num_workers: int = 4,
        validation: int | float = 0.05,
        validation_manifest: str | None = None,
        validation_seconds: float | None = 10.0,
        short: Short = "pad",
        check: Check = "full",
        seed: int = 1234,
        drop_last: bool = True,
        epoch: Epoch = "seconds",
        skip_silence: float | None = None,
        augment: Augment | None = None,
        max_faulty: float = 0.05,
        cache: str | None = None,
        mel_format: MelFormat | str | None = None,
    ) -> None:
        super().__init__()
        self.mel = LogMelSpectrogram() if mel is None else mel
        self.root = root
        self.manifest = manifest
        self.segment_length = segment_length
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.validation = validation
        self.validation_manifest = validation_manifest
        self.validation_seconds = validation_seconds
        self.short = short
        self.check = check
        self.seed = seed
        self.drop_last = drop_last
        self.epoch = epoch
        self.skip_silence = skip_silence
        self.augment = augment
        self.max_faulty = max_faulty
        self.cache = cache
        self.faults = FaultCount()
        self.mel_format, unfit = _known_format(mel_format, self.mel)
        self._validate(unfit)
        self.train_dataset: SegmentDataset | None = None
        self.validation_dataset: UtteranceDataset | None = None

    def _validate(self, unfit: list[str]) -> None:
        hop = self.mel.hop_length
        rules = {
            "give root or manifest: a folder of recordings, or a table of them": (
                self.root is not None or self.manifest is not None
            ),
            f"give either root or manifest, not both, got {self.root!r} and {self.manifest!r}": (
                self.root is None or self.manifest is None
            ),
            f"segment_length must be a multiple of the mel's hop_length={hop}, got {self.segment_length}": (
                self.segment_length > 0 and self.segment_length % hop == 0
            ),
            f"batch_size must be at least 1, got {self.batch_size}": self.batch_size >= 1,
            f"num_workers must be at least 0, got {self.num_workers}": self.num_workers >= 0,
            f"validation must be a share in [0, 1) or a number of files, got {self.validation}": (
                self.validation >= 0 and (isinstance(self.validation, int) or self.validation < 1)
            ),
            f"validation_seconds must be positive or None, got {self.validation_seconds}": (
                self.validation_seconds is None or self.validation_seconds > 0
            ),
            f"short must be 'pad' or 'skip', got {self.short!r}": self.short in ("pad", "skip"),
            f"check must be 'full' or 'header', got {self.check!r}": self.check in ("full", "header"),
            f"seed must be at least 0, got {self.seed}": self.seed >= 0,
            f"epoch must be one of {', '.join(EPOCHS)}, got {self.epoch!r}": self.epoch in EPOCHS,
            f"skip_silence must be in dB, below 0, or None, got {self.skip_silence}": (
                self.skip_silence is None or self.skip_silence < 0
            ),
            f"max_faulty must be a share in [0, 1], got {self.max_faulty}": 0 <= self.max_faulty <= 1,
            f"cache must be 'memory', the name of a folder, or None, got {self.cache!r}": (
                self.cache is None or (self.cache != "" and not os.path.isfile(self.cache))
            ),
        }
        if mistakes := [*(rule for rule, kept in rules.items() if not kept), *unfit]:
            raise ValueError("AudioDataModule: " + "; ".join(mistakes) + ".")

    def setup(self, stage: str | None = None) -> None:
        """Find, check and split the files, once for all stages."""
        if self.train_dataset is not None:
            return
        if self.num_workers > (processors := available_processors()):
            rank_zero_warn(
                f"data.num_workers is {self.num_workers}, but this process may use {processors} CPUs: more reading "
                "processes than that wait for each other",
                category=UserWarning,
            )
        files, _ = check_files(self._listed(), self.check, mel=self.mel, mel_format=self.mel_format)
        if self.validation_manifest is None:
            training, validation = split_files(files, self.validation, self.seed)
        else:
            training = files
            listed = read_manifest(self.validation_manifest)
            validation, _ = check_files(listed, self.check, mel=self.mel, mel_format=self.mel_format)
        if self.mel_format is not None and not any(file.mel for file in [*training, *validation]):
            raise ValueError(
                f"data.mel_format={self.mel_format.name} says how given mels were made, but no recording names one: "
                "give a manifest with a column mel, or leave it out."
            )
        warn_of_resampling([*training, *validation], self.mel.sample_rate)
        read = self._reader([*training, *validation])
        self.validation_dataset = UtteranceDataset(
            validation, self.mel, self.validation_seconds, self.segment_length, TRIES, read, self.mel_format
        )
        self.train_dataset = SegmentDataset(
            training,
            self.mel,
            self.segment_length,
            self.short,
            self.seed,
            self.epoch,
            self.skip_silence,
            self.augment,
            TRIES,
            read,
            self.mel_format,
        )

    def _reader(self, files: Sequence[AudioFile]) -> ReadSegment:
        if self.cache is None:
            return read_segment
        return (MemoryCache(file.path for file in files) if self.cache == "memory" else FolderCache(self.cache)).read

    def _listed(self) -> Sequence[AudioFile]:
        if self.root is not None:
            return scan_folder(self.root)
        assert self.manifest is not None  # _validate saw to it
        return read_manifest(self.manifest)

    def train_dataloader(self) -> ResumableDataLoader:
        """Shuffled segments, a different place in each file every epoch, shared out over the ranks."""
        self.setup()
        assert self.train_dataset is not None
        ranks, rank = (self.trainer.world_size, self.trainer.global_rank) if self.trainer else (1, 0)
        sampler = EpochSampler(self.train_dataset, ranks, rank, seed=self.seed, draws=True)
        full = len(sampler) >= self.batch_size
        if self.drop_last and not full:
            what = "files" if self.epoch == "files" else "segments"
            warnings.warn(
                f"The {len(sampler)} training {what} of a rank do not fill a batch of {self.batch_size}: "
                "the epoch is this one smaller batch.",
                stacklevel=2,
            )
        # By name: for overfit_batches, Lightning makes the loader again with another sampler.
        return ResumableDataLoader(
            self.train_dataset, self.batch_size, sampler=sampler, drop_last=self.drop_last and full, **self._reading()
        )

    def val_dataloader(self) -> DataLoader | list[DataLoader]:
        """Whole utterances, one at a time, in their order; no loader without validation files."""
        self.setup()
        if not self.validation_dataset:
            return []
        return DataLoader(self.validation_dataset, batch_size=1, **self._reading())

    def _reading(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "collate_fn": collate,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": self._on_cuda,
            "worker_init_fn": _leave_stopping_to_the_trainer,
            "generator": torch.Generator().manual_seed(self.seed),  # leaves torch's global generator alone
        }

    @property
    def _on_cuda(self) -> bool:
        # Not wherever there is a GPU: pinned memory needs a CUDA context, which a run on the CPU must not make.
        return self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"

    def on_before_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Take out what could not be read: name it, count it, log the count, and end training when it is too much.

        Raises:
            FaultyDataError: more than ``max_faulty`` of the last thousand crops could not be read.
        """
        if not isinstance(batch, dict) or not {"context", "audio"} & batch.keys():
            return batch
        batch = dict(batch)
        faults = batch.pop("faults", [])
        self.faults = self.faults.after(len(batch.get("context", batch.get("audio"))), faults, self.max_faulty)
        if faults and self.trainer is not None:
            for logger in self.trainer.loggers:
                logger.log_metrics({"data/faulty_crops": self.faults.faulty}, step=self.trainer.global_step)
        return batch

    def state_dict(self) -> dict[str, Any]:
        """What could not be read so far, so that counts and the limit go on after resuming as if nothing had been."""
        return {**asdict(self.faults), "named": list(self.faults.named)}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on counting."""
        self.faults = FaultCount(**{**state_dict, "named": tuple(state_dict["named"])})

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Turn what was read into audio and mel; other batches pass unchanged."""
        if not isinstance(batch, dict) or not {"context", "audio"} & batch.keys():
            return batch
        batch = dict(batch)
        if (context := batch.pop("context", None)) is not None:
            left, right = self.mel.context
            batch["audio"] = context[..., left : context.shape[-1] - right]
            if "mel" not in batch:
                batch["mel"] = self.mel.frames_of(context)
        elif "mel" not in batch:
            batch["mel"] = self.mel(batch["audio"])
        return batch


def _known_format(form: MelFormat | str | None, mel: LogMelSpectrogram) -> tuple[MelFormat | None, list[str]]:
    """Return the format, and what is wrong with it."""
    if isinstance(form, str):
        try:
            form = MelFormat.named(form)
        except (ValueError, OSError) as error:
            return None, [f"mel_format: {error}"]
    if form is not None and (differ := form.differences(mel)):
        return form, [f"mel_format {form.name} does not fit the mel in use: {'; '.join(differ)}"]
    return form, []


def _leave_stopping_to_the_trainer(_: int) -> None:
    """Let a loader's process end when the trainer ends it, and not before: without its readers it could not finish.

    A cluster sends its signals to every process, a terminal its Ctrl-C. Only a SIGTERM from the trainer counts.
    """
    for name in ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    if not hasattr(signal, "sigtimedwait"):  # no way to tell who sent it
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        return
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_end_with, args=(os.getppid(),), daemon=True).start()


def _end_with(trainer: int) -> None:
    while os.getppid() == trainer:  # a worker that outlives its trainer holds the connections to other ranks open
        received = signal.sigtimedwait({signal.SIGTERM}, 0.5)
        if received is not None and received.si_pid == trainer:
            break
    os._exit(0)
