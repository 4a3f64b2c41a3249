"""Fronts: non-dominated points, hypervolume and the knee. Pure functions.

In: an array of points, one row each, and an `Axis` for each column. Out: masks and numbers.
NaN is refused at the door: a row that is partly NaN makes dominance meaningless.

Hypervolume is that of Zitzler and Thiele (1998), computed after each axis is scaled so that 0 is
its ideal and 1 its reference; what is worse than the reference adds nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Points = NDArray[np.float64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One objective as an axis of the front.

    Attributes:
        direction: which way is better.
        ideal: the value at 0 of the scaled axis.
        reference: the value at 1; points beyond it add no hypervolume.
        log2: whether the axis is scaled in powers of two (bytes).
    """

    direction: Literal["minimize", "maximize"]
    ideal: float
    reference: float
    log2: bool = False

    def cost(self, values: ArrayLike) -> Points:
        """The values where smaller is better, in powers of two where the axis is; below one byte counts as one."""
        points = np.asarray(values, dtype=float)
        if self.log2:
            points = np.log2(np.maximum(points, 1.0))
        return points if self.direction == "minimize" else -points

    def scale(self, values: ArrayLike) -> Points:
        """The values on the scaled axis, where smaller is better: 0 is ideal, 1 the reference."""
        points, ideal, reference = self.cost(values), float(self.cost(self.ideal)), float(self.cost(self.reference))
        if ideal == reference:
            # A single value is possible: being at it costs nothing of the volume.
            return np.where(points <= ideal, 0.0, np.inf)
        return np.asarray((points - ideal) / (reference - ideal), dtype=float)


def signed(points: ArrayLike, axes: Sequence[Axis]) -> Points:
    """The points with each maximised column negated, so that smaller is better everywhere."""
    array = _checked(points, len(axes))
    signs: Points = np.array([1.0 if axis.direction == "minimize" else -1.0 for axis in axes])
    return array * signs


def non_dominated(points: ArrayLike) -> Mask:
    """Which rows no other row dominates, smaller being better in every column.

    Equal rows do not dominate each other: all of them are kept.

    Args:
        points: (rows, objectives).

    Raises:
        ValueError: a NaN.
    """
    array = _checked(points)
    rows, columns = array.shape
    if rows == 0:
        return np.zeros(0, dtype=bool)
    if columns == 2:
        return _non_dominated_pairs(array)
    kept = np.ones(rows, dtype=bool)
    for row in range(rows):
        if kept[row]:
            worse = (array >= array[row]).all(axis=1) & (array > array[row]).any(axis=1)
            kept &= ~worse
    return kept


def front(points: ArrayLike, axes: Sequence[Axis]) -> list[int]:
    """Row numbers of the non-dominated points, sorted by the last objective, best first."""
    array = signed(points, axes)
    rows = np.flatnonzero(non_dominated(array))
    return [int(row) for row in rows[np.lexsort(array[rows].T)]]


def hypervolume(points: ArrayLike, axes: Sequence[Axis]) -> float:
    """The share of the box between ideal and reference that the points dominate.

    Args:
        points: (rows, objectives) in the objectives' own units.
        axes: one for each objective.

    Returns:
        0 for no point better than the reference, 1 for a point at the ideal.

    Raises:
        ValueError: a NaN.
    """
    array = _checked(points, len(axes))
    if len(array) == 0:
        return 0.0
    scaled = np.column_stack([axis.scale(array[:, column]) for column, axis in enumerate(axes)])
    return dominated_volume(np.clip(scaled, 0.0, None))


def dominated_volume(points: Points) -> float:
    """The volume that points dominate in the unit box, smaller being better, against (1, …, 1)."""
    inside = points[(points < 1.0).all(axis=1)]
    if len(inside) == 0:
        return 0.0
    inside = np.unique(inside[non_dominated(inside)], axis=0)
    if inside.shape[1] == 1:
        return float(1.0 - inside[0, 0])
    if inside.shape[1] == 2:
        heights = np.concatenate([[1.0], inside[:-1, 1]]) - inside[:, 1]
        return float(((1.0 - inside[:, 0]) * heights).sum())
    # Slices along the first objective: between two neighbours the others dominate a constant area.
    edges = np.concatenate([inside[:, 0], [1.0]])
    return float(
        sum(
            (edges[row + 1] - edges[row]) * dominated_volume(inside[: row + 1, 1:])
            for row in range(len(inside))
            if edges[row + 1] > edges[row]
        )
    )


def knee(points: ArrayLike, axes: Sequence[Axis]) -> int:
    """The row of the front farthest below the line between its ends.

    Bytes count in powers of two; each axis runs from the best to the worst value of the front.

    Returns:
        A row number; where the front has fewer than three points, the one nearest the ideal.

    Raises:
        ValueError: no point, or a NaN.
    """
    array = _checked(points, len(axes))
    rows = front(array, axes)
    if not rows:
        raise ValueError("the knee of no points is undefined")
    if len(rows) < 3:
        scaled = np.column_stack([axis.scale(array[rows][:, column]) for column, axis in enumerate(axes)])
        return rows[int(np.square(scaled).sum(axis=1).argmin())]
    costs = np.column_stack([axis.cost(array[rows][:, column]) for column, axis in enumerate(axes)])
    spread = costs.max(axis=0) - costs.min(axis=0)
    unit = (costs - costs.min(axis=0)) / np.where(spread > 0, spread, 1.0)
    # For ends at (0, 1) and (1, 0) the distance below the line is a monotone of the sum.
    return rows[int(unit.sum(axis=1).argmin())]


def _non_dominated_pairs(array: Points) -> Mask:
    order = np.lexsort((array[:, 1], array[:, 0]))
    ordered = array[order]
    best_before = np.concatenate([[np.inf], np.minimum.accumulate(ordered[:, 1])[:-1]])
    kept = ordered[:, 1] < best_before
    # An equal row stands right after its twin and shares its fate.
    same = np.concatenate([[False], (ordered[1:] == ordered[:-1]).all(axis=1)])
    for row in np.flatnonzero(same):
        kept[row] = kept[row - 1]
    mask = np.zeros(len(array), dtype=bool)
    mask[order] = kept
    return mask


def _checked(points: ArrayLike, columns: int | None = None) -> Points:
    array = np.asarray(points, dtype=float)
    if array.ndim != 2:
        array = array.reshape(-1, columns or (array.shape[-1] if array.ndim and array.size else 1))
    if columns is not None and array.shape[1] != columns and array.size:
        raise ValueError(f"{array.shape[1]} columns do not fit {columns} objectives")
    if np.isnan(array).any():
        raise ValueError("a front of NaN is undefined: refuse the value where it was measured")
    return array
