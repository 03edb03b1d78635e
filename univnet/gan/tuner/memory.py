"""How much memory is free, how much processes use (from Linux's /proc), and which errors mean that it ran out.

A *budget* is bytes of main memory for a training process and its loader workers together: what is in use already,
shared libraries included, plus what training adds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

RESERVE = 0.1  # share of the free memory that the default budget does not use
_SCARCE = 0.05  # share of a GPU's memory: with less free, a library may have no room for its handle
_KIB = 1024


def default_budget(processes: int = 1, root: Path = Path("/")) -> int:
    """Return what this process uses plus 90 % of the free memory, divided by ``processes``, in bytes.

    The free memory is the machine's, or what the limits of the cgroup (version 1 or 2) and its parents leave if that is
    less. Memory that the kernel can reclaim counts as free.
    """
    free = min([_available(root), *_cgroup_free(root)])
    return usage(root / "proc/self").total + int(free * (1 - RESERVE) / processes)


def _available(root: Path) -> int:
    fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * _KIB


def _cgroup_free(root: Path) -> Iterator[int]:
    """Yield the free bytes of each memory cgroup of this process that has a limit."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            mount, limit, used = "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            mount, limit, used = "sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        top = root / mount
        folder = top / path.strip("/")
        # In a container the path may be the host's, of which only the top exists here.
        for each in [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]:
            most, in_use = _read(each / limit).strip(), _read(each / used).strip()
            if most.isdecimal() and in_use.isdecimal():
                yield max(0, int(most) - int(in_use) + _inactive_file(each))


def _inactive_file(folder: Path) -> int:
    fields = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


@dataclass(frozen=True)
class Usage:
    """Main memory of one process, in bytes.

    Attributes:
        anonymous: its own memory, shared memory included.
        files: mapped files, such as shared libraries.
        data: requested memory, used or not, which ``RLIMIT_DATA`` limits.
        peak: the largest sum of ``anonymous`` and ``files`` so far.
    """

    anonymous: int
    files: int
    data: int
    peak: int

    @property
    def total(self) -> int:
        """The resident memory: ``anonymous`` plus ``files``."""
        return self.anonymous + self.files


def usage(process: Path) -> Usage:
    """Return the memory of the process with this folder in /proc.

    Raises:
        ProcessLookupError: if the process has ended.
    """
    fields = dict(line.split(":", 1) for line in _read(process / "status").splitlines() if ":" in line)
    if "VmRSS" not in fields:
        raise ProcessLookupError(f"{process} has ended")
    anonymous, shared, files, data, peak = (
        int(fields[name].split()[0]) * _KIB for name in ("RssAnon", "RssShmem", "RssFile", "VmData", "VmHWM")
    )
    return Usage(anonymous + shared, files, data, peak)


def private(process: Path) -> int:
    """Return the bytes that the process with this folder in /proc does not share; for a fork, those it added."""
    lines = _read(process / "smaps_rollup").splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) * _KIB for name in ("Private_Clean", "Private_Dirty") if name in fields)


def descendants(process: Path) -> Iterator[Path]:
    """Yield the folders in /proc of all child processes, and of theirs, of the process with this folder."""
    for task in process.glob("task/*/children"):
        for child in _read(task).split():
            folder = process.parent / child
            yield folder
            yield from descendants(folder)


def _read(path: Path) -> str:
    """Return a file's text; empty if the file does not exist or its process has ended."""
    try:
        return path.read_text()
    except OSError:
        return ""


# Errors that mean that memory ran out: by type, by message, or wrapped in other errors.
_TYPES = (torch.OutOfMemoryError, MemoryError)
_MESSAGES = re.compile(
    r"""
    out\ of\ memory                                        # CUDA, HIP, MPS and XPU allocators, and their drivers
    | (CUBLAS|HIPBLAS|ROCBLAS|CUDNN|MIOPEN|CUFFT|CUSOLVER|CUSPARSE|NCCL)_?STATUS_ALLOC_?FAILED
    | CUFFT_ALLOC_FAILED | ROCBLAS_STATUS_MEMORY_ERROR | MIOPENSTATUSALLOCFAILED
    | CUDNN_STATUS_NOT_SUPPORTED                           # also if a tensor is too large for cuDNN
    | CUDNN_STATUS_INTERNAL_ERROR_\w*ALLOCATION_FAILED
    | unable\ to\ find\ an\ engine\ to\ execute\ this\ computation  # no convolution's workspace fits
    | MPS\ backend\ out\ of | Insufficient\ Memory\ \(.*kIOGPU
    | UR_RESULT_ERROR_OUT_OF_(HOST|DEVICE)_MEMORY | PI_ERROR_OUT_OF | ZE_RESULT_ERROR_OUT_OF
    | DefaultCPUAllocator:\ (can't\ allocate|not\ enough)\ memory
    | (cannot|can't|could\ not|failed\ to|unable\ to)\ allocate\ (\w+\ )?memory
    | std::bad_alloc | bad\ allocation
    | could\ not\ create\ a\ memory                        # oneDNN
    | DFTI\ ERROR:.*(memory|alloc)                         # MKL's Fourier transforms
    | can't\ start\ new\ thread                            # no room for its stack
    | DataLoader\ worker\ .*killed\ by\ signal:\ (Killed|Bus\ error)
    | out\ of\ shared\ memory | unable\ to\ mmap\ .*Cannot\ allocate
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)
# Messages that can have other causes, too: of oneDNN and OpenMP, and of CUDA's libraries, which need memory to begin.
_AMBIGUOUS = re.compile(
    r"""
    could\ not\ (create|execute)\ a | resource\ temporarily\ unavailable | mkldnn | onednn
    | (CUBLAS|CUDNN|CUSOLVER|CUSPARSE|HIPBLAS|MIOPEN)_?STATUS_(NOT_?INITIALIZED|INTERNAL_ERROR)
    | CUFFT_(INTERNAL_ERROR|SETUP_FAILED)
    | NCCL\ error.*unhandled\ (cuda|system)\ error
    """,
    re.IGNORECASE | re.VERBOSE | re.DOTALL,
)


def is_out_of_memory(error: BaseException, scarce: bool = False) -> bool:
    """Whether ``error``, or an error in its chain of causes and contexts, says that memory ran out.

    If memory is known to have been ``scarce``, messages that can have other causes count, too.
    """
    seen: set[int] = set()
    errors: list[BaseException | None] = [error]
    while errors:
        each = errors.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        if isinstance(each, _TYPES):
            return True
        if isinstance(each, RuntimeError | OSError):
            text = str(each)
            if _MESSAGES.search(text) or (scarce and _AMBIGUOUS.search(text)):
                return True
        errors += [each.__cause__, each.__context__]
    return False


def is_scarce(device: torch.device) -> bool:
    """Whether less than 5 % of a GPU's memory is free, whoever holds the rest; ``False`` for other devices."""
    if device.type != "cuda":
        return False
    try:
        free, total = torch.cuda.mem_get_info(device)
    except RuntimeError:  # after some errors the device answers nothing more
        return False
    return free < _SCARCE * total


def reason(error: BaseException) -> str:
    """Return the first line of the error's message, for a table."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
