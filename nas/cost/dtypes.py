"""Bytes of one element of each dtype, by the names that users write."""

from __future__ import annotations

from typing import Final

from nas.errors import SpaceError, did_you_mean

BYTES_PER_ELEMENT: Final = {"fp32": 4, "bf16": 2, "fp16": 2, "fp64": 8}


def bytes_per_element(dtype: str) -> int:
    """Bytes of one element.

    Raises:
        SpaceError: there is no such dtype.
    """
    if dtype not in BYTES_PER_ELEMENT:
        raise SpaceError(f"unknown dtype '{dtype}': {did_you_mean(dtype, BYTES_PER_ELEMENT)}")
    return BYTES_PER_ELEMENT[dtype]
