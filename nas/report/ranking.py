"""How alike two rankings of the same candidates are.

In: two scores of each candidate. Out: Kendall's tau-b, which counts the pairs that both rankings order alike less those
that they order in opposite ways, ties set aside (Kendall 1945, "The treatment of ties in ranking problems").
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def kendall_tau(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Tau-b of two scores, in [-1, 1]: 1 for the same order, -1 for the reverse.

    Returns:
        None where it is undefined: fewer than two candidates, or a score that is the same for all.

    Raises:
        ValueError: scores of unequal length.
    """
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} scores are not of the same candidates")
    rows, columns = np.triu_indices(len(first), k=1)
    orders = [
        np.sign(np.asarray(one, dtype=float)[rows] - np.asarray(one, dtype=float)[columns]) for one in (first, second)
    ]
    untied = [float(np.abs(order).sum()) for order in orders]
    if 0.0 in untied:
        return None
    return float((orders[0] * orders[1]).sum()) / float(np.sqrt(untied[0] * untied[1]))
