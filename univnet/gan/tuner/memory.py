"""How much memory there is to train in, how much processes take (from Linux's /proc), and what running out looks like.

A *budget* is bytes of main memory for a training process and its loader workers together: what is in use already,
shared libraries included, and what training adds.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

RESERVE = 0.1  # share of the free memory that the default budget leaves alone
_KIB = 1024


def default_budget(processes: int = 1, root: Path = Path("/")) -> int:
    """Return what this process holds and 90 % of what is free, shared out among ``processes`` such processes, in bytes.

    Free is what the machine can give, or what the cgroup's limit leaves (version 1 or 2, with those above it) if that
    is less. What the kernel can take back, it counts as free.
    """
    free = min([_available(root), *_cgroup_free(root)])
    return usage(root / "proc/self").total + int(free * (1 - RESERVE) / processes)


def _available(root: Path) -> int:
    fields = dict(line.split(":", 1) for line in (root / "proc/meminfo").read_text().splitlines())
    return int(fields["MemAvailable"].split()[0]) * _KIB


def _cgroup_free(root: Path) -> Iterator[int]:
    """Yield what each memory cgroup that this process is in leaves free, where it has a limit."""
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
        # A container may see a path of the host's, of which only the top is here.
        for each in [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]:
            most, now = _read(each / limit).strip(), _read(each / used).strip()
            if most.isdecimal() and now.isdecimal():
                yield max(0, int(most) - int(now) + _inactive_file(each))


def _inactive_file(folder: Path) -> int:
    fields = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
    return int(fields.get("total_inactive_file", fields.get("inactive_file", 0)))


@dataclass(frozen=True)
class Usage:
    """Bytes of main memory of one process.

    Attributes:
        anonymous: of its own, shared memory included.
        files: of files that it maps, such as shared libraries.
        data: what it has asked for, touched or not: what ``RLIMIT_DATA`` limits.
        peak: the most that ``anonymous`` and ``files`` have come to together.
    """

    anonymous: int
    files: int
    data: int
    peak: int

    @property
    def total(self) -> int:
        """What it occupies."""
        return self.anonymous + self.files


def usage(process: Path) -> Usage:
    """Return what the process of this folder in /proc occupies.

    Raises:
        ProcessLookupError: there is no such process any more.
    """
    fields = dict(line.split(":", 1) for line in _read(process / "status").splitlines() if ":" in line)
    if "VmRSS" not in fields:
        raise ProcessLookupError(f"{process} has ended")
    anonymous, shared, files, data, peak = (
        int(fields[name].split()[0]) * _KIB for name in ("RssAnon", "RssShmem", "RssFile", "VmData", "VmHWM")
    )
    return Usage(anonymous + shared, files, data, peak)


def private(process: Path) -> int:
    """Return the bytes that only the process of this folder in /proc occupies: of a forked one, what it added."""
    lines = _read(process / "smaps_rollup").splitlines()[1:]
    fields = dict(line.split(":", 1) for line in lines)
    return sum(int(fields[name].split()[0]) * _KIB for name in ("Private_Clean", "Private_Dirty") if name in fields)


def descendants(process: Path) -> Iterator[Path]:
    """Yield the folders in /proc of the processes that the one of this folder has started, and that they have."""
    for task in process.glob("task/*/children"):
        for child in _read(task).split():
            folder = process.parent / child
            yield folder
            yield from descendants(folder)


def _read(path: Path) -> str:
    """Return a file's text; that of a file that is not there, or whose process has ended, is empty."""
    try:
        return path.read_text()
    except OSError:
        return ""


# What running out of memory looks like: by type, by message, and wrapped in other errors.
_TYPES = (torch.OutOfMemoryError, MemoryError)
_MESSAGES = re.compile(
    r"""
    out\ of\ memory                                        # CUDA, HIP, MPS and XPU allocators, and their drivers
    | (CUBLAS|HIPBLAS|ROCBLAS|CUDNN|MIOPEN|CUFFT|CUSOLVER|CUSPARSE|NCCL)_?STATUS_ALLOC_?FAILED
    | CUFFT_ALLOC_FAILED | ROCBLAS_STATUS_MEMORY_ERROR | MIOPENSTATUSALLOCFAILED
    | CUDNN_STATUS_NOT_SUPPORTED                           # also what cuDNN says of a tensor too large for it
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
# What oneDNN and OpenMP say of other troubles, too.
_AMBIGUOUS = re.compile(r"could not (create|execute) a|resource temporarily unavailable|mkldnn|onednn", re.IGNORECASE)


def is_out_of_memory(error: BaseException, scarce: bool = False) -> bool:
    """Whether ``error``, or one that it was raised from or in place of, says that memory ran out.

    Where memory is known to have been ``scarce``, messages count that can have other causes.
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


def reason(error: BaseException) -> str:
    """Return the error's first line, for a table."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
