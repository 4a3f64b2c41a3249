"""The C library's allocator, set for training on a CPU.

glibc maps every block above 32 MiB anew from the system and gives it back when it is freed, so each
temporary of a long sequence costs a page fault per 4 KiB: a fifth to a half of the time of a pass
over 16,384 tokens, and none of one over 4,096. Kept, they cost room instead: the peak resident set
of such a pass grew by 0 to 30 %, by the holes between blocks of other sizes. Where that room is
limited, large blocks go back at once.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

# The parameters of mallopt(3).
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_M_MMAP_MAX = -4
_LARGEST = 2**31 - 1
# As glibc sets them.
_TRIM_THRESHOLD = 128 * 1024
_MMAP_MAX = 65_536
# Smaller ones cost more in page faults than they leave in holes.
_MAPPED_BYTES = 4 * 2**20


@contextmanager
def freed_memory_kept() -> Iterator[None]:
    """Within it, memory that is freed stays with this process; behind it, all that is free goes back.

    It stays so for the process: what is freed later is kept too. A user who set the allocator by
    `MALLOC_…` or `GLIBC_TUNABLES` is not overruled, and other C libraries are left alone.
    """
    libc = _glibc()
    if libc is None:
        yield
        return
    libc.mallopt(_M_MMAP_MAX, 0)
    libc.mallopt(_M_TRIM_THRESHOLD, _LARGEST)
    try:
        yield
    finally:
        libc.malloc_trim(0)


@contextmanager
def freed_memory_returned() -> Iterator[None]:
    """Within it, and for the process from then on, large blocks go back to the system when they are freed.

    What a process holds is then what it uses, which a limit on it needs; `freed_memory_kept` has it the other way.
    """
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)
        libc.mallopt(_M_MMAP_MAX, _MMAP_MAX)
        libc.mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)
        libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
    yield


def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    if any(name.startswith("MALLOC_") or name == "GLIBC_TUNABLES" for name in os.environ):
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
