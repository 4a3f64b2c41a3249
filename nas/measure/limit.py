"""A limit on the memory that a job may take, beyond what its process holds before it.

In: bytes and the device that the job runs on. Out: a job that asks for more fails with an error of its own, as on a
device of that size, and the process lives on.

On CUDA it is torch's own limit on its allocator. On a CPU it is the kernel's RLIMIT_DATA, which counts private
writable memory: heap and anonymous maps. RLIMIT_AS would count addresses too that are never used (CUDA reserves
terabytes, each arena of the C library 64 MiB) and the files of data that are mapped; a limit on the resident set
(RLIMIT_RSS) has had no effect since Linux 2.4.30. What the C library holds free beforehand can be used besides, for
no limit takes it away; so it must not hold much (`nas.measure.allocator.freed_memory_returned`). Counted as free it
would make the limit too strict, since large blocks do not fit its holes.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nas.errors import StudyError
from nas.measure.peak import process_memory
from nas.units import format_bytes

# Elements that torch gives to a thread at least, where it divides an operation among them.
_GRAIN = 32_768


def check_memory_limit(limit: int | None, device: torch.device) -> None:
    """Refuses a limit that nothing would hold.

    Raises:
        StudyError: on a CPU anywhere but on Linux.
    """
    if limit is not None and device.type != "cuda" and (sys.platform != "linux" or "VmData" not in process_memory()):
        raise StudyError(
            f"memory_limit {format_bytes(limit)}: only CUDA and Linux can limit the memory of a training; "
            "leave memory_limit out here, and limit train_peak_bytes in the space's constraints"
        )


class MemoryLimit:
    """What this process may take from now on, while it is held.

    Args:
        limit: bytes beyond those that the process holds now; None for none.
        device: that the job runs on.

    Raises:
        StudyError: the system knows no such limit.
    """

    def __init__(self, limit: int | None, device: torch.device) -> None:
        check_memory_limit(limit, device)
        self._device = device
        self._allowed: int | None = None
        if limit is None:
            return
        gc.collect()
        if device.type == "cuda":
            torch.cuda.empty_cache()
            self._allowed = torch.cuda.memory_reserved(device) + limit
        else:
            _start_threads()
            self._allowed = process_memory()["VmData"] + limit

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within it, more than is allowed is refused; behind it, the limits are those of before."""
        if self._allowed is None:
            yield
        elif self._device.type == "cuda":
            with _allocator_limit(self._allowed, self._device):
                yield
        else:
            with _data_limit(self._allowed):
                yield


@contextmanager
def _allocator_limit(allowed: int, device: torch.device) -> Iterator[None]:
    _, total = torch.cuda.mem_get_info(device)
    before = torch.cuda.get_per_process_memory_fraction(device)
    torch.cuda.set_per_process_memory_fraction(min(before, allowed / total), device)
    try:
        yield
    finally:
        torch.cuda.set_per_process_memory_fraction(before, device)


@contextmanager
def _data_limit(allowed: int) -> Iterator[None]:
    # Not every system has the module.
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    # A stricter limit of the user's own stays.
    ends = [end for end in (soft, hard) if end != resource.RLIM_INFINITY]
    resource.setrlimit(resource.RLIMIT_DATA, (min([allowed, *ends]), hard))
    try:
        yield
    finally:
        # The soft limit alone was moved, and may go back as far as the hard one.
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _start_threads() -> None:
    """Makes torch's threads before the limit holds: OpenMP ends the process if it cannot make one."""
    torch.zeros(2 * _GRAIN * torch.get_num_threads()).add_(1.0)
