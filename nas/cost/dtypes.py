"""Bytes of one element of each dtype, by the names that users write."""

from __future__ import annotations

from typing import Final

from nas.errors import SpaceError, did_you_mean

BYTES_PER_ELEMENT: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp64": 8}
# A key/value cache alone may be kept in these.
CACHE_BITS: Final = {"fp8": 8, "int8": 8, "int4": 4, "int2": 2}


def bytes_per_element(dtype: str, *, key: str = "dtype") -> int:
    """Bytes of one element.

    Args:
        dtype: a name of `BYTES_PER_ELEMENT`.
        key: what it was given for, in the error.

    Raises:
        SpaceError: there is no such dtype, or a cache alone may have it.
    """
    if dtype in BYTES_PER_ELEMENT:
        return BYTES_PER_ELEMENT[dtype]
    if dtype in CACHE_BITS:
        valid = ", ".join(sorted(BYTES_PER_ELEMENT))
        raise SpaceError(f"unknown {key} '{dtype}': valid: {valid} (a cache alone may have it: cache_dtype={dtype})")
    raise SpaceError(f"unknown {key} '{dtype}': {did_you_mean(dtype, BYTES_PER_ELEMENT)}")


def check_cache_dtype(dtype: str) -> None:
    """Refuses what no cache can be kept in.

    Raises:
        SpaceError: there is no such dtype.
    """
    if dtype not in BYTES_PER_ELEMENT and dtype not in CACHE_BITS:
        raise SpaceError(f"unknown cache_dtype '{dtype}': {did_you_mean(dtype, [*BYTES_PER_ELEMENT, *CACHE_BITS])}")
