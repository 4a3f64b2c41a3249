"""Expected hypervolume improvement, exactly, over known and measured objectives.

In: a front, and for each candidate the mean and deviation of every objective (0 where it is known).
Out: how much hypervolume each would add, in expectation.

The region that no member of the front dominates is cut into boxes once (slices along one axis after
the other, as in `nas.pareto`). In a box the gain is a product over the objectives, and these are
independent given the candidate, so the expectation is a product too (Emmerich et al. 2011): a known
objective enters as the number it is. Of one measured and one known objective this is a one-dimensional
integral for each step of the front. Boxes grow as points^(objectives - 1).
"""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import numpy as np

from nas.pareto import non_dominated
from nas.search.frontier.surrogate import Array

# Candidates × boxes × objectives held at once.
_CHUNK = 2_000_000
_ERFC = np.frompyfunc(math.erfc, 1, 1)


class Boxes(NamedTuple):
    """Disjoint boxes, smaller being better; low ends may be -inf.

    Attributes:
        low: (boxes, objectives).
        high: (boxes, objectives).
    """

    low: Array
    high: Array


def free_boxes(points: Array) -> Boxes:
    """What of (-inf, 1)^objectives no point dominates.

    Args:
        points: (points, objectives), scaled; those that are not inside dominate nothing.
    """
    inside = points[(points < 1.0).all(axis=1)]
    if len(inside):
        inside = np.unique(inside[non_dominated(inside)], axis=0)
    rows = _cut(inside)
    return Boxes(np.array([low for low, _ in rows]), np.array([high for _, high in rows]))


def _cut(points: Array) -> list[tuple[list[float], list[float]]]:
    dimensions = points.shape[1]
    if dimensions == 1:
        return [([-math.inf], [float(points.min(initial=1.0))])]
    edges = [-math.inf, *sorted({float(value) for value in points[:, 0]}), 1.0]
    found = []
    for start, end in itertools.pairwise(edges):
        others = points[points[:, 0] <= start][:, 1:]
        if len(others):
            others = np.unique(others[non_dominated(others)], axis=0)
        found += [([start, *low], [end, *high]) for low, high in _cut(others)]
    return found


def expected_improvement(boxes: Boxes, means: Array, deviations: Array) -> Array:
    """The hypervolume that each candidate would add, in expectation.

    Args:
        boxes: that are free.
        means: (candidates, objectives), scaled as the boxes are.
        deviations: (candidates, objectives); 0 where the value is known.

    Returns:
        (candidates,), at least 0.
    """
    size = max(1, _CHUNK // max(1, boxes.low.size))
    parts = [
        _improvement(boxes, means[start : start + size], deviations[start : start + size])
        for start in range(0, len(means), size)
    ]
    return np.concatenate(parts) if parts else np.zeros(0)


def _improvement(boxes: Boxes, means: Array, deviations: Array) -> Array:
    product = np.ones((len(means), len(boxes.low)))
    for column in range(means.shape[1]):
        # Many boxes share an edge.
        edges, where = np.unique(np.concatenate([boxes.low[:, column], boxes.high[:, column]]), return_inverse=True)
        below = _expected_below(edges, means[:, column], deviations[:, column])
        low, high = where[: len(boxes.low)], where[len(boxes.low) :]
        product *= below[:, high] - below[:, low]
    return np.asarray(np.maximum(product.sum(axis=1), 0.0))


def _expected_below(edges: Array, means: Array, deviations: Array) -> Array:
    """E[max(edge - Y, 0)] of normal Y, (candidates, edges); 0 at an edge of -inf."""
    gaps = np.where(np.isfinite(edges), edges, -1e300)[None, :] - means[:, None]
    spread = np.where(deviations > 0, deviations, 1.0)[:, None]
    ratio = np.clip(gaps / spread, -40.0, 40.0)
    expected = np.where(ratio <= -40.0, 0.0, gaps * _normal_below(ratio) + spread * _density(ratio))
    return np.where(deviations[:, None] > 0, np.maximum(expected, 0.0), np.maximum(gaps, 0.0))


def _density(ratio: Array) -> Array:
    return np.asarray(np.exp(-0.5 * ratio**2) / math.sqrt(2.0 * math.pi))


def _normal_below(ratio: Array) -> Array:
    """The normal distribution function."""
    return 0.5 * np.asarray(_ERFC(-ratio / math.sqrt(2.0)), dtype=float)
