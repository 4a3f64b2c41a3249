"""Numbers and networks in words.

In: columns of a frame, objectives, architectures. Out: short texts with units, equal wherever they
are shown. A column's name says what it holds, as everywhere in nas: `serve_bytes` is bytes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import pandas as pd

from nas.space.architecture import Architecture
from nas.space.layers import Layer
from nas.store import StoredObjective
from nas.units import format_bytes, format_count

MISSING = "–"
# Values of a column whose sizes differ by more than this have no common number of decimals.
WIDEST_SPREAD = 1000.0
SIGNIFICANT = 4
# Where fewer would show different values as equal.
MOST_SIGNIFICANT = 6

_BYTE_UNITS = ("B", "byte", "bytes")
_COUNTS = ("tokens", "parameters", "flops", "flops_per_token")


@dataclass(frozen=True)
class Grid:
    """A frame as it is shown.

    Attributes:
        headers: of the columns.
        rows: texts, as many in each row as there are headers.
        numeric: for each column whether it is aligned to the right.
    """

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]


def grid(frame: pd.DataFrame) -> Grid:
    """The frame's cells as texts.

    Args:
        frame: `attrs["units"]` may map columns to units; `attrs["hidden"]` lists columns to leave out.
    """
    units: Mapping[str, str] = frame.attrs.get("units", {})
    names = [str(name) for name in frame.columns if name not in frame.attrs.get("hidden", ())]
    columns = [column_texts(frame[name], unit=units.get(name, "")) for name in names]
    return Grid(
        headers=tuple(names),
        rows=tuple(zip(*columns, strict=True)),
        numeric=tuple(_is_number(frame[name]) for name in names),
    )


def column_texts(column: pd.Series[Any], *, unit: str = "") -> list[str]:
    """The cells of one column: bytes in binary units, counts with a suffix, floats of equal decimals."""
    name = str(column.name)
    present = [value for value in column if not _is_missing(value)]
    if _is_number(column):
        show = _number_format(name, unit, [float(value) for value in present])
        return [MISSING if _is_missing(value) else show(float(value)) for value in column]
    return [MISSING if _is_missing(value) else _plain(name, value) for value in column]


def value_text(objective: StoredObjective, value: float) -> str:
    """One value of an objective, with its unit where bytes need one."""
    return _number_format(objective.name, objective.unit, [value])(value)


def is_bytes(name: str, unit: str = "") -> bool:
    """Whether numbers of that name are sizes in bytes."""
    plain = name.partition("@")[0]
    return unit in _BYTE_UNITS or plain == "bytes" or plain.endswith("_bytes")


def axis_label(objective: StoredObjective) -> str:
    """Name, unit and direction: "bits_per_byte (bit/byte, lower is better)"."""
    # Tick labels of bytes carry their own unit.
    unit = f"{objective.unit}, " if objective.unit and not is_bytes(objective.name, objective.unit) else ""
    better = "lower" if objective.direction == "minimize" else "higher"
    return f"{objective.name} ({unit}{better} is better)"


def mixer_letters(architectures: Iterable[Architecture]) -> dict[str, str]:
    """A short name for each mixer that occurs: its initials, or more of its letters where two share them."""
    names = sorted({layer.mixer for architecture in architectures for layer in architecture.all_layers})
    initials = {name: "".join(word[0] for word in _words(name)).upper() for name in names}
    letters: dict[str, str] = {}
    for name in names:
        shared = [other for other in names if initials[other] == initials[name]]
        letters[name] = initials[name] if len(shared) == 1 else _shortest_prefix(name, shared)
    return letters


def mixers_in_short(architecture: Architecture, letters: Mapping[str, str]) -> str:
    """The mixers from the first layer to the last: "F SW32×2 F", the number being the window."""
    named = [letters[layer.mixer] + _window(layer) for layer in architecture.all_layers]
    runs = ((name, len(list(run))) for name, run in groupby(named))
    return " ".join(name if count == 1 else f"{name}×{count}" for name, count in runs)


def mixer_legend(letters: Mapping[str, str], architectures: Sequence[Architecture]) -> str:
    """What the short names stand for."""
    windowed = {layer.mixer for found in architectures for layer in found.all_layers if "window" in layer.values}
    parts = (
        f"{short} {name}" + (" (number: window in tokens)" if name in windowed else "")
        for name, short in letters.items()
    )
    return f"mixers, first layer first: {', '.join(parts)}"


def _is_number(column: pd.Series[Any]) -> bool:
    return pd.api.types.is_numeric_dtype(column) and not pd.api.types.is_bool_dtype(column)


def _is_missing(value: object) -> bool:
    return value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value))


def _number_format(name: str, unit: str, values: Sequence[float]) -> Callable[[float], str]:
    if is_bytes(name, unit):
        return format_bytes
    if name.partition("@")[0] in _COUNTS:
        return format_count
    sizes = [abs(value) for value in values if value]
    if all(value == int(value) for value in values if math.isfinite(value)):
        return lambda value: f"{value:.0f}"
    if max(sizes) > WIDEST_SPREAD * min(sizes) or not 1e-3 <= max(sizes) < 1e6 or name.endswith("_rate"):
        return lambda value: f"{value:.{SIGNIFICANT - 1}g}"
    whole_digits = 1 + math.floor(math.log10(max(sizes)))
    for significant in (SIGNIFICANT, SIGNIFICANT + 1, MOST_SIGNIFICANT):
        decimals = max(0, significant - whole_digits)
        if len({round(value, decimals) for value in values}) == len(set(values)):
            break
    return lambda value: f"{value:.{decimals}f}"


def _plain(name: str, value: object) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d %H:%M}"
    # A reason may quote anything; neither a terminal nor a page should obey it.
    text = "".join(letter if letter.isprintable() else " " for letter in str(value))
    return text[:8] if name == "fingerprint" else text


def _words(name: str) -> list[str]:
    # A user's own mixer is named "module:Class".
    return [word for word in name.rpartition(":")[2].split("_") if word] or [name]


def _shortest_prefix(name: str, others: Sequence[str]) -> str:
    plain = name.rpartition(":")[2]
    for length in range(1, len(plain) + 1):
        if sum(other.rpartition(":")[2][:length] == plain[:length] for other in others) == 1:
            return plain[:length].capitalize()
    return name


def _window(layer: Layer) -> str:
    window = layer.values.get("window")
    return "" if window is None else str(window)
