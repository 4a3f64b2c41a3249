"""What an unfinished training says of its end.

In: the costs of finished candidates at each rung and at the end, and the costs of an unfinished one so
far. Out: the cost that it is expected to end with, and the variance of that. The gain from a rung to
the end is a line in the cost at that rung, fitted to the finished ones and drawn to a constant where
they are few: curves of one task and budget keep their order mostly, and how much they still gain
depends on how far they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nas.search.frontier.surrogate import Array

# Fewer finished curves say nothing of how they go on.
LEAST_FINISHED = 4
# Prior deviation of the line's slope, and how many curves the prior of the residuals counts for.
_SLOPE = 0.5
_PRIOR_COUNT = 2.0


@dataclass(frozen=True)
class Expected:
    """The end of a training, as expected.

    Attributes:
        cost: mean.
        variance: of the end around it.
    """

    cost: float
    variance: float


def expected_end(cost: float, before: Array, ends: Array) -> Expected | None:
    """The end of a training whose newest cost is given.

    Args:
        cost: of the unfinished one at its last rung.
        before: (finished,), costs of finished ones at the same rung.
        ends: (finished,), their costs at the end.

    Returns:
        None where too few are finished.
    """
    count = len(before)
    if count < LEAST_FINISHED:
        return None
    gains = ends - before
    center, mean = float(before.mean()), float(gains.mean())
    offsets = before - center
    spread = float(((gains - mean) ** 2).mean())
    ridge = spread / _SLOPE**2
    weight = float(offsets @ offsets) + ridge
    slope = float(offsets @ (gains - mean)) / weight if weight > 0 else 0.0
    residuals = gains - mean - slope * offsets
    noise = (float(residuals @ residuals) + _PRIOR_COUNT * spread) / (count - 2 + _PRIOR_COUNT)
    off = cost - center
    reach = off**2 / weight if weight > 0 else 0.0
    return Expected(cost + mean + slope * off, noise * (1.0 + 1.0 / count + reach))


def expected_ends(
    unfinished: Sequence[Sequence[float]], finished: Sequence[Sequence[float]], ends: Array
) -> list[Expected | None]:
    """The ends of several trainings.

    Args:
        unfinished: of each, the costs at its rungs, one or more.
        finished: of each finished one, the costs at its rungs; may be empty where they are not known.
        ends: (finished,), their costs at the end.
    """
    found = []
    for costs in unfinished:
        rung = len(costs) - 1
        rows = [row for row, curve in enumerate(finished) if len(curve) > rung]
        before = np.array([finished[row][rung] for row in rows])
        found.append(expected_end(costs[rung], before, ends[rows]))
    return found
