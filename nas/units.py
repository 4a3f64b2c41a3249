"""Units of bytes, of time and of speed: text in, numbers out.

MiB is 2**20 bytes and MB is 10**6; both are accepted and never confused.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from nas.errors import InputError, did_you_mean

BYTES = {
    "B": 1,
    "KB": 10**3,
    "MB": 10**6,
    "GB": 10**9,
    "TB": 10**12,
    "KiB": 2**10,
    "MiB": 2**20,
    "GiB": 2**30,
    "TiB": 2**40,
}
# Of counts, and of floating-point operations a second, as `format_count` writes them.
SPEEDS = {"k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15}
SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}

_QUANTITY = re.compile(r"^\s*(?P<number>[-+]?[\d_]*\.?\d+(?:[eE][-+]?\d+)?)\s*(?P<unit>[A-Za-z]*)\s*$")


def parse_bytes(text: str | float) -> float:
    """Bytes of "8 MiB", "24GB" or a plain number.

    Raises:
        InputError: no number, or a unit that does not exist.
    """
    return _parse(text, BYTES, "bytes", "8 MiB")


def parse_size(text: str | float) -> float:
    """Bytes of something that takes room: as `parse_bytes`, and above 0.

    Raises:
        InputError: no number, a unit that does not exist, or nothing and less.
    """
    size = parse_bytes(text)
    if not 0 < size < math.inf:
        raise InputError(f"a size must be above 0 bytes and finite, not '{text}': the smallest is 1 B")
    return size


def parse_speed(text: str | float) -> float:
    """FLOPs a second of "2e11", "200G" or "0.2 T"; above 0.

    Raises:
        InputError: no number, nothing and less, or a unit that does not exist.
    """
    speed = _parse(text, SPEEDS, "FLOPs a second", "200 G")
    if not 0 < speed < math.inf:
        raise InputError(f"a speed must be above 0 FLOPs a second and finite, not '{text}'")
    return speed


def parse_count(text: str | float) -> float:
    """How many "2e9", "50M" or "50_000_000" are; above 0.

    Raises:
        InputError: no number, nothing and less, or a unit that does not exist.
    """
    count = _parse(text, SPEEDS, "a count", "50 M")
    if not 0 < count < math.inf:
        raise InputError(f"a count must be above 0 and finite, not '{text}'")
    return count


def parse_seconds(text: str | float) -> float:
    """Seconds of "30m", "2h", "90 s" or a plain number.

    Raises:
        InputError: no number, a negative one, or a unit that does not exist.
    """
    seconds = _parse(text, SECONDS, "time", "30 m")
    if seconds < 0:
        raise InputError(f"a time must not be negative, not '{text}'")
    return seconds


def parse_factor(text: str) -> float:
    """The number of "8x", a multiple that makes nothing smaller.

    Raises:
        InputError: no number with an x behind it, or one below 1.
    """
    number, x, rest = text.strip().partition("x")
    if not x or rest or _QUANTITY.match(number) is None:
        raise InputError(f"'{text}' is no multiple: write a number and an x, such as '8x'")
    factor = parse_number(number)
    if not 1 <= factor < math.inf:
        raise InputError(f"a multiple must be at least 1x and finite, not '{text}'")
    return factor


def parse_number(text: str | float) -> float:
    """A number that has no unit.

    Raises:
        InputError: no number, or a unit.
    """
    return _parse(text, {}, "a number", "0.5")


def format_bytes(count: float) -> str:
    """Three significant digits in the binary unit that fits: 262144 is "256 KiB"."""
    for unit in ("TiB", "GiB", "MiB", "KiB"):
        # From 1023.5 on, three or four digits would be written 1024 of the smaller unit.
        if abs(count) >= BYTES[unit] * (1 - 0.5 / 1024):
            return f"{_three_digits(count / BYTES[unit])} {unit}"
    return f"{count:.0f} B"


def exact_bytes(count: float) -> str:
    """Bytes as they can be typed in again without a loss, and how much that is: "262144 B (256 KiB)"."""
    return f"{count:.0f} B ({format_bytes(count)})" if count >= BYTES["KiB"] else f"{count:.0f} B"


def format_seconds(seconds: float) -> str:
    """The unit that fits: "40 s", "12 min", "3.5 h", "2.1 d"."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{_three_digits(seconds / size)} {unit}"
    return f"{_three_digits(seconds)} s"


def format_count(count: float) -> str:
    """Three significant digits with a decimal suffix: 2.4e12 is "2.4T"."""
    for size, suffix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(count) >= size:
            return f"{_three_digits(count / size)}{suffix}"
    return _three_digits(count)


def _three_digits(number: float) -> str:
    # From 999.5 on, three significant digits would be written 1e+03.
    return f"{number:.3g}" if abs(number) < 999.5 else f"{number:.0f}"


def _parse(text: str | float, units: Mapping[str, int | float], what: str, example: str) -> float:
    if isinstance(text, int | float):
        return float(text)
    match = _QUANTITY.match(text)
    if match is None:
        kind = f"quantity of {what}: write a number and a unit" if units else "number: write one"
        raise InputError(f"'{text}' is no {kind}, such as '{example}'")
    unit = match["unit"]
    if unit and not units:
        raise InputError(f"'{text}' has a unit and must be a plain number, such as '{match['number']}'")
    if unit and unit not in units:
        raise InputError(f"unknown unit '{unit}' in '{text}': {_nearest_unit(unit, units)}")
    return float(match["number"].replace("_", "")) * (units[unit] if unit else 1)


def _nearest_unit(unit: str, units: Mapping[str, int | float]) -> str:
    """The nearest unit; both that a letter may stand for, where it could be a decimal or a binary one."""
    decimal, binary = f"{unit[0].upper()}B", f"{unit[0].upper()}iB"
    if binary in units and unit.casefold() in (unit[0].casefold(), decimal.casefold()):
        return f"did you mean '{decimal}' ({units[decimal]:,} bytes) or '{binary}' ({units[binary]:,})?"
    return did_you_mean(unit, units)
