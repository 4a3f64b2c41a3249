"""The first candidates: spread over the known objectives, both ends included.

In: what was started so far. Out: the next candidate. Before anything is measured the known
objectives are all there is, and a front needs members along all of them: the two ends of each are
sought by climbing, which costs nothing; then the widest gaps are filled with random candidates. (The
one that differs most in its features was tried there: odd networks, poor for their memory, that taught
the surrogate no more.) Where nothing is known, the most different are taken.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nas.pareto import Axis
from nas.search.frontier.options import Option
from nas.search.frontier.pool import Pool
from nas.search.frontier.surrogate import Array, Inputs, Standard

CLIMBS = 40
CHILDREN = 10
# Of the widest gap: what is about as far counts as equal, and chance decides.
_ABOUT = 0.8


def next_spread(pool: Pool, before: Sequence[Option], known: Mapping[int, Axis]) -> Option | None:
    """The next of the first candidates.

    Args:
        pool: of options that were not tried.
        before: what was started.
        known: position → axis of the known objectives.

    Returns:
        None where the pool holds nothing new.
    """
    if not pool.options:
        return None
    if len(before) < 2 * len(known):
        column = sorted(known)[len(before) // 2]
        return _climb(pool, known[column], column, sign=1.0 if len(before) % 2 else -1.0)
    everything = [*before, *pool.options]
    if known:
        values = known_values(everything, known)
        gaps = _nearest(values[len(before) :], values[: len(before)])
        return pool.options[int((gaps >= _ABOUT * gaps.max()).argmax())]
    raw = np.stack([option.summary for option in everything])
    inputs = Inputs(raw, np.zeros((len(raw), 0)))
    features = Standard.of(inputs).apply(inputs).summary
    return pool.options[int(_nearest(features[len(before) :], features[: len(before)]).argmax())]


def known_values(options: Sequence[Option], known: Mapping[int, Axis]) -> Array:
    """Known objectives on their scaled axes: (options, known objectives)."""
    columns = [axis.scale([option.known[place] for option in options]) for place, axis in sorted(known.items())]
    return np.column_stack(columns)


def _climb(pool: Pool, axis: Axis, column: int, sign: float) -> Option:
    """The option with the largest (sign 1) or smallest (sign -1) known value that climbing finds."""

    def height(option: Option) -> float:
        return sign * float(axis.cost(option.known[column]))

    best = max(pool.options, key=height)
    for _ in range(CLIMBS):
        best = max([best, *pool.changed([best], CHILDREN)], key=height)
    return best


def _nearest(of: Array, to: Array) -> Array:
    """The distance of each row to the nearest of others; infinite where there are none."""
    if not len(to):
        return np.full(len(of), np.inf)
    return np.asarray(np.sqrt(np.square(of[:, None, :] - to[None, :, :]).sum(axis=2)).min(axis=1))
