"""Charts of plain text, for terminals and logs.

In: numbers. Out: lines. Nothing here needs more than a fixed-width font.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

FULL, LIGHT = "█", "░"
MARKS = "o+x*#%@&"
# Where two series share a place.
OVERLAP = "="
BAR_COLUMNS = 40
HEIGHT = 14
# Fewer bins than this say next to nothing, so octaves are cut into parts.
FEWEST_BINS = 4
PARTS = (1, 2, 4, 8)


def histogram(
    values: Sequence[float], marked: Sequence[bool], *, text: Callable[[float], str], columns: int = BAR_COLUMNS
) -> list[str]:
    """Bars of how often values fall into bins of equal factors: octaves, or equal parts of one.

    Args:
        values: above 0; at least one.
        marked: for each value whether it belongs to the dark part of its bar.
        text: of a bin's lower end.
        columns: of the longest bar.
    """
    parts = next((found for found in PARTS if len(_bins(values, found)) >= FEWEST_BINS), PARTS[0])
    bins = _bins(values, parts)
    dark, total = dict.fromkeys(bins, 0), dict.fromkeys(bins, 0)
    for value, is_dark in zip(values, marked, strict=True):
        place = _bin(value, parts)
        dark[place] += is_dark
        total[place] += 1
    labels = {place: text(2 ** (place / parts)) for place in bins}
    width, most = max(map(len, labels.values())), max(total.values())
    lines = []
    for place in bins:
        ends = [-(-count * columns // most) for count in (dark[place], total[place])]
        bar = FULL * ends[0] + LIGHT * (ends[1] - ends[0])
        lines.append(f"{labels[place]:>{width}} {bar:<{columns}} {total[place]:>6,}".rstrip())
    return lines


def _bin(value: float, parts: int) -> int:
    return math.floor(math.log2(value) * parts + 1e-9)


def _bins(values: Sequence[float], parts: int) -> range:
    return range(_bin(min(values), parts), _bin(max(values), parts) + 1)


def curves(
    xs: Sequence[float],
    series: Mapping[str, Sequence[float | None]],
    *,
    x_text: Callable[[float], str],
    y_text: Callable[[float], str],
    height: int = HEIGHT,
) -> list[str]:
    """Series over common places, on a vertical axis of equal factors, with a legend where there are several.

    Args:
        xs: the places, evenly spaced on the chart.
        series: name → value above 0 at each place, None where there is none.
        x_text: of a place.
        y_text: of a value.
        height: rows.
    """
    known = [value for values in series.values() for value in values if value is not None]
    low, high = math.log2(min(known)), math.log2(max(known))
    span = max(high - low, 1e-9)
    rows = height if high > low else 1
    x_labels = [x_text(x) for x in xs]
    step = max(map(len, x_labels)) + 2
    grid = [[" "] * (step * len(xs)) for _ in range(rows)]
    for mark, values in zip(MARKS * len(series), series.values(), strict=False):
        for place, value in enumerate(values):
            if value is None:
                continue
            row = rows - 1 - round((math.log2(value) - low) / span * (rows - 1))
            column = place * step + step // 2
            grid[row][column] = mark if grid[row][column] == " " else OVERLAP
    y_labels = [y_text(2 ** (low + span * (rows - 1 - row) / max(rows - 1, 1))) for row in range(rows)]
    width = max(map(len, y_labels))
    lines = [f"{label:>{width}} |{''.join(cells)}".rstrip() for label, cells in zip(y_labels, grid, strict=True)]
    lines.append(" " * width + " +" + "-" * (step * len(xs)))
    lines.append((" " * (width + 2) + "".join(f"{label:^{step}}" for label in x_labels)).rstrip())
    if len(series) > 1:
        names = [f"{mark} {name}" for mark, name in zip(MARKS * len(series), series, strict=False)]
        lines.append(" " * (width + 2) + ", ".join([*names, f"{OVERLAP} several"]))
    return lines
