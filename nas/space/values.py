"""Whether a value has the type and the bounds of its key.

In: a value of a file, and the key that it is for. Out: nothing, or an error with the place, the
rule and the value.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeVar

from nas.errors import InputError, SpaceError
from nas.specs.base import Key

_Found = TypeVar("_Found")


def check_value(name: str, value: object, key: Key, where: str) -> None:
    """Refuses a value of the wrong type or beyond the key's bounds.

    Raises:
        SpaceError: with the place, the rule and the value.
    """
    if not key.admits(value):
        raise SpaceError(f"{where}: {name} must be {key.words}, not {value!r}")
    if not isinstance(value, int | float):
        return
    if not _is_finite(value):
        raise SpaceError(f"{where}: {name} must be a finite number, not {value!r}")
    if key.minimum is not None and value < key.minimum:
        raise SpaceError(f"{where}: {name} must be at least {key.minimum:g}, not {value!r}")
    if key.maximum is not None and value > key.maximum:
        raise SpaceError(f"{where}: {name} must be at most {key.maximum:g}, not {value!r}")


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:
        # An integer beyond every float.
        return False


def at_place(where: str, find: Callable[[], _Found]) -> _Found:
    """What `find` finds, its errors told with the place.

    Raises:
        SpaceError: it found nothing.
    """
    try:
        return find()
    except InputError as error:
        raise SpaceError(f"{where}: {error}") from None
