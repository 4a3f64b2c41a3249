"""The order in which a fixed training set is read: epoch after epoch, each in an order of its own.

In: a size, a seed, and a stretch of the endless row of all epochs. Out: which examples stand there.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.tasks.randomness import Purpose, generator


def in_epochs(size: int, *, seed: int, first: int, count: int, place: int = 0, sets: int = 1) -> NDArray[np.int64]:
    """The examples at first..first+count−1 of the row; a pure function of the arguments.

    Args:
        size: examples of the set; each epoch holds all of them once.
        seed: of the training.
        first: from 0.
        count: how many.
        place: of the set among those of the task, each of which has orders of its own.
        sets: how many there are.
    """
    epoch_E, place_E = np.divmod(np.arange(first, first + count), size)
    index_E = np.empty_like(place_E)
    for epoch in np.unique(epoch_E).tolist():
        index_E[epoch_E == epoch] = _epoch(seed, epoch * sets + place, size)[place_E[epoch_E == epoch]]
    return index_E


@lru_cache(maxsize=16)
def _epoch(seed: int, step: int, size: int) -> NDArray[np.int64]:
    return generator(Purpose.ORDER, seed=seed, step=step).permutation(size)
