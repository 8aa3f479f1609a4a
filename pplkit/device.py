"""Where to run and in which precision, and what to do where memory runs out."""

import platform
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class OutOfMemory(RuntimeError):
    """The device's memory does not hold a step; the message names what to lower."""


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error of torch or Python says that memory ran out, of a GPU or of the machine."""
    said = str(error).lower()  # a CPU's: "can't allocate memory", or "not enough memory: you tried to allocate"
    return (isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "out of memory" in said
            or "alloc_failed" in said or "allocation_failed" in said  # cuBLAS, cuDNN
            or ("memory" in said and "alloc" in said))


@contextmanager
def memory_help(message: Callable[[], str]) -> Iterator[None]:
    """Turn an error that says that memory ran out into `OutOfMemory` with a message that says what to do."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error) and not isinstance(error, OutOfMemory):
            raise OutOfMemory(message()) from error
        raise


def try_fewer(what: str, batch_size: int, otherwise: str = "smaller images, or a smaller backbone") -> str:
    """For `memory_help`: names the batch size to try instead of `batch_size`, and what else may help."""
    smaller = f"batch_size={batch_size // 2}, " if batch_size > 1 else ""
    return f"out of memory: {what} with batch_size={batch_size}: try {smaller}{otherwise}"


def resolve(device: str | torch.device = "auto") -> torch.device:
    """ "auto" -> CUDA if there is one, else the CPU; anything else is taken as it is.

    Raises:
        ValueError: unknown name; CUDA, or the GPU of that number, is asked for and absent.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"device must be 'auto', 'cpu', 'cuda' or another torch device, got {device!r}") from error
    there = torch.cuda.device_count() if device.type == "cuda" and torch.cuda.is_available() else 0
    if device.type == "cuda" and (device.index or 0) >= there:
        raise ValueError(f"device {str(device)!r} asked for, but torch sees {there or 'no'} CUDA device"
                         f"{'s' if there > 1 else ''}; use device='cpu' or 'auto'")
    return device


def is_there(device: str | torch.device) -> bool:
    """Whether `resolve` takes it and, for "mps", torch sees an Apple GPU; other kinds are not looked for."""
    try:
        return resolve(device).type != "mps" or torch.backends.mps.is_available()
    except ValueError:
        return False


def autocast(device: torch.device, enabled: bool | None = None) -> torch.autocast:
    """bfloat16 autocast; None switches it on where the processor multiplies bfloat16 itself (elsewhere it is slower)."""
    enabled = multiplies_bfloat16(device) if enabled is None else enabled
    return torch.autocast(device.type, torch.bfloat16, enabled=enabled)


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the processor multiplies bfloat16 itself. On x86 oneDNN says yes to any AVX-512, where it only imitates it."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if not torch.backends.mkldnn.is_available() or not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    return not x86 or torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
