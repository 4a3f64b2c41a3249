"""Axes for objectives that come without one.

In: the axes that are given, and values seen so far. Out: one for each objective. Hypervolume needs
a scale; where the study has none, a known objective runs over its values, in powers of two where
they span several, and a measured one to a tenth beyond the worst member of the front, so that both
ends of the front count (Ishibuchi et al. 2018).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from nas.pareto import Axis, front

Direction = Literal["minimize", "maximize"]

_MARGIN = 0.1
_POWERS = 4.0


def known_axis(direction: Direction, values: Sequence[float]) -> Axis:
    """The axis of a known objective."""
    low, high = min(values), max(values)
    log2 = low >= 1.0 and high > _POWERS * low
    return _axis(direction, low, high, log2=log2)


def measured_axis(direction: Direction, values: Sequence[float], members: Sequence[float]) -> Axis:
    """The axis of a measured objective.

    Args:
        direction: "minimize" or "maximize".
        values: of everything that was observed.
        members: of the front.
    """
    margin = _MARGIN * (max(members) - min(members))
    if direction == "minimize":
        return _axis(direction, min(values), max(members) + margin)
    return _axis(direction, min(members) - margin, max(values))


def front_rows(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Rows of the front, whatever the scale."""
    return front(points, [Axis(direction=found, ideal=0.0, reference=1.0) for found in directions])


def _axis(direction: Direction, low: float, high: float, *, log2: bool = False) -> Axis:
    if high <= low:
        # One value so far: any unit will do.
        high = low + max(1.0, abs(low)) * 1e-3
    ends = (low, high) if direction == "minimize" else (high, low)
    return Axis(direction=direction, ideal=ends[0], reference=ends[1], log2=log2)
