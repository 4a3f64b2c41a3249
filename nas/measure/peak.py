"""The most memory that a piece of work held at once, beyond what the process held before it.

In: the device that the work is done on. Out: bytes. On CUDA they are those of torch's allocator; on a CPU the growth
of the peak resident set, which scratch space of C++ kernels and the holes between blocks belong to. Following every
tensor there (`nas.measure.tracker`) is exact but too slow for every training.
"""

from __future__ import annotations

import ctypes
import gc
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
# Sets the high-water mark of the resident set back to what is resident now (proc(5)).
_RESET_PEAK = "5"


class Peak:
    """Watches the memory of this process from now on.

    On Linux the kernel's high-water mark is set back, which `getrusage` and whoever else looks at it see too. Where
    that is not permitted, a peak below an earlier one is not known.

    Args:
        device: that the work is done on.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
            self._before = torch.cuda.memory_allocated(device)
            self._reserved_before = torch.cuda.memory_reserved(device)
            return
        self._is_set_back = _set_back()
        found = process_memory()
        self._before, self._mark = found.get("VmRSS", 0), found.get("VmHWM", 0)

    def bytes(self) -> int | None:
        """Most bytes held at once so far, or None where nothing tells."""
        if self._device.type == "cuda":
            return max(0, torch.cuda.max_memory_allocated(self._device) - self._before)
        mark = process_memory().get("VmHWM", 0)
        # A mark that was not set back and did not move is that of something earlier.
        return max(0, mark - self._before) if self._is_set_back or mark > self._mark else None

    def reserved(self) -> int | None:
        """Most bytes that torch's allocator took from a CUDA device at once; None on others."""
        if self._device.type != "cuda":
            return None
        return max(0, torch.cuda.max_memory_reserved(self._device) - self._reserved_before)


def process_memory() -> dict[str, int]:
    """Bytes of this process by the kernel's names (VmRSS, VmHWM, VmData, …); nothing where it tells none."""
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return {}
    fields = (line.split() for line in lines if line.startswith("Vm"))
    return {words[0].rstrip(":"): int(words[1]) * 1024 for words in fields}


@contextmanager
def own_garbage_collected() -> Iterator[None]:
    """Collects the cycles of objects that are made within it, at its end; what is older is not looked at.

    A trainer and its module refer to each other, so that without a collection their tensors stay. A full one looks
    at every object of the process, a tenth of a second and more for the libraries alone: as long as short trainings.
    """
    gc.freeze()
    try:
        yield
    finally:
        gc.collect()
        gc.unfreeze()


def release_memory() -> None:
    """Gives back what a job left behind: cycles of objects, CUDA's cache, free blocks of the C library."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)


def _set_back() -> bool:
    try:
        _CLEAR.write_text(_RESET_PEAK)
    except OSError:
        # No Linux, or a sandbox that forbids it.
        return False
    return True
