"""Where the random numbers of the tasks come from.

In: a seed, a step and the purpose. Out: a numpy generator that depends on nothing else, so that
the batch of a step is the same whether the steps before it ran in this process, in another one or
not at all.

The derivation: PCG64 seeded by `SeedSequence(seed mod 2**64, spawn_key=(purpose, step))`. The spawn
key keeps purposes and steps apart for good (numpy documents the streams of different spawn keys as
independent), so held-out examples can never be those of a training step, whatever the seed.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What the numbers are for; the values are part of the derivation and never change."""

    TRAINING = 0
    LENGTHS = 1
    VALIDATION = 2
    TEST = 3
    EXAMPLES = 4
    ORDER = 5
    CLASSES = 16


def generator(purpose: Purpose, *, seed: int, step: int = 0) -> np.random.Generator:
    """The generator of one purpose at one step; a negative seed is as good as any other."""
    sequence = np.random.SeedSequence(seed % 2**64, spawn_key=(int(purpose), step))
    return np.random.Generator(np.random.PCG64(sequence))
