"""Every way in which running out of memory is told, and none in which something else is."""

import pytest
import torch
from lightning.pytorch.utilities.memory import is_oom_error

from univnet.gan.tuner.memory import is_out_of_memory, is_scarce, reason

MESSAGES = [
    "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.10 GiB",
    "CUDA error: out of memory",
    "CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`",
    "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
    "cuDNN error: CUDNN_STATUS_NOT_SUPPORTED. This error may appear if you passed in a non-contiguous input.",
    "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED",
    "cuFFT error: CUFFT_ALLOC_FAILED",
    "Unable to find an engine to execute this computation",
    "HIP out of memory. Tried to allocate 20.00 MiB",
    "miopenStatusAllocFailed",
    "HIPBLAS_STATUS_ALLOC_FAILED when calling `hipblasCreate(handle)`",
    "MPS backend out of memory (MPS allocated: 17.92 GB, max allowed: 18.13 GB)",
    "XPU out of memory. Tried to allocate 18.00 GiB",
    "level_zero backend failed with error: 39 (UR_RESULT_ERROR_OUT_OF_DEVICE_MEMORY)",
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes.",
    "[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.",
    "std::bad_alloc",
    "MKL FFT error: Intel oneMKL DFTI ERROR: Memory allocation failed",
    "DataLoader worker (pid 1234) is killed by signal: Killed. ",
    "DataLoader worker (pid(s) 7) exited: unable to mmap 8192 bytes: Cannot allocate memory (12)",
    "NCCL error: unhandled cuda error, Cuda failure 2 'out of memory'",
]
OTHERS = [
    "CUDA error: device-side assert triggered",
    "Expected memory format channels_last, got contiguous",
    "The size of tensor a (3) must match the size of tensor b (4) at non-singleton dimension 1",
    "CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`",
    "cuDNN error: CUDNN_STATUS_EXECUTION_FAILED",
    "DataLoader worker (pid 1234) is killed by signal: Segmentation fault. ",
    "could not create a primitive",
]


@pytest.mark.parametrize("message", MESSAGES)
def test_messages(message: str) -> None:
    assert is_out_of_memory(RuntimeError(message))
    assert not is_out_of_memory(ValueError(message))  # no allocator's


@pytest.mark.parametrize("message", OTHERS)
def test_other_messages(message: str) -> None:
    assert not is_out_of_memory(RuntimeError(message))


def test_more_is_recognised_than_by_lightning() -> None:
    theirs = [message for message in MESSAGES if is_oom_error(RuntimeError(message))]
    assert 0 < len(theirs) < len(MESSAGES)


def test_types() -> None:
    assert is_out_of_memory(torch.OutOfMemoryError("any"))
    assert is_out_of_memory(torch.cuda.OutOfMemoryError("any"))
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(KeyboardInterrupt())


def test_what_torch_really_raises() -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60)
    assert is_out_of_memory(caught.value)
    with pytest.raises(MemoryError) as full:
        bytearray(2**60)
    assert is_out_of_memory(full.value)


def raised(first: Exception, then: Exception, chained: bool) -> Exception:
    """Return ``then`` as it is when raised from, or while handling, ``first``."""
    try:
        try:
            raise first
        except type(first) as error:
            if chained:
                raise then from error
            raise then  # noqa: B904
    except type(then) as error:
        return error


def test_wrapped_errors() -> None:
    assert is_out_of_memory(raised(MemoryError(), ValueError("the step failed"), chained=True))
    assert is_out_of_memory(raised(torch.OutOfMemoryError("full"), KeyError("in cleaning up"), chained=False))
    assert not is_out_of_memory(raised(ValueError("one"), KeyError("other"), chained=False))
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    assert not is_out_of_memory(one)


@pytest.mark.parametrize(
    "message",
    [
        "could not create a primitive",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasSgemm`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "cuDNN error: CUDNN_STATUS_INTERNAL_ERROR",
        "cuFFT error: CUFFT_INTERNAL_ERROR",
        "cusolver error: CUSOLVER_STATUS_INTERNAL_ERROR, when calling `cusolverDnCreate(handle)`",
        "NCCL error in: ProcessGroupNCCL.cpp:2251, unhandled cuda error (run with NCCL_DEBUG=INFO for details)",
    ],
)
def test_ambiguous_messages_count_where_memory_is_scarce(message: str) -> None:
    error = RuntimeError(message)
    assert not is_out_of_memory(error)
    assert is_out_of_memory(error, scarce=True)


def test_a_gpu_of_which_a_twentieth_is_free_is_scarce(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def info(device: torch.device) -> tuple[int, int]:
        asked.append(device)
        if free is None:
            raise RuntimeError("CUDA error: an illegal memory access was encountered")
        return free, 1000

    monkeypatch.setattr(torch.cuda, "mem_get_info", info)
    answers = []
    for free in (49, 50, None):  # noqa: B007 - ``info`` reads it
        answers.append(is_scarce(torch.device("cuda:1")))
    assert answers == [True, False, False]
    assert asked == [torch.device("cuda:1")] * 3
    assert not is_scarce(torch.device("cpu"))


def test_the_reason_is_a_line() -> None:
    assert reason(RuntimeError("out of memory\nTraceback\n")) == "out of memory"
    assert reason(MemoryError()) == "MemoryError"
