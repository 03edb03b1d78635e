"""What running out of memory looks like: by type, by message, and wrapped in other errors."""

import re

import torch

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
