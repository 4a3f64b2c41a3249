"""Which documents the sequences of a training step are taken from.

In: the documents of the training part, and the length that a step is to have. Out: the length that it
has, and random places of documents that are long enough for it.

A step's sequences have one length and no padding, and none holds tokens of two documents. Documents
that are shorter than the step's sequences would then never be trained on. So a step of a length turns
to shorter documents as often as tokens lie in them: to one class of them, whose sequences have the
length of the shortest in the class. The classes are a quarter of an octave wide, so that a cut leaves
out 8 % of a document on average, another part of it each time.

Which class a step takes follows a golden-ratio sequence over the rounds of steps (see
`nas.tasks.lengths`): after any number of steps each class was taken as often as its tokens ask for,
but for a few steps.

Legend: D documents, B sequences, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from nas.tasks.lengths import mixed_length, training_lengths
from nas.tasks.randomness import Purpose, generator
from nas.tasks.windows import Positions

SHORTEST_DOCUMENT = 8
"""Tokens of the shortest sequence that documents are cut to."""

GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Take:
    """What a step takes.

    Attributes:
        length: of its sequences, in tokens.
        first: first of the documents, in the order of falling length.
        last: one past the last of them.
    """

    length: int
    first: int
    last: int


class Sampling:
    """The documents of the training part by their length.

    Args:
        bounds_D: where each begins, and where the last one ends.
        text_size: tokens that a document needs for a sequence of a length; grows with it.
        shortest: the shortest length of a sequence.
    """

    def __init__(self, bounds_D: Positions, text_size: Callable[[int], int], shortest: int) -> None:
        sizes_D = np.diff(bounds_D)
        order_D = np.argsort(-sizes_D, kind="stable")
        self._start_D, self._size_D = bounds_D[:-1][order_D], sizes_D[order_D]
        self._before_D = np.concatenate([[0], np.cumsum(self._size_D)])
        self._text_size, self._shortest = text_size, shortest
        self._classes = lru_cache(maxsize=64)(self._made_classes)

    @property
    def longest(self) -> int:
        """Tokens of the longest document."""
        return int(self._size_D[0])

    def step(self, *, seed: int, step: int, max_context: int) -> Take:
        """What a training step takes: a pure function of its arguments."""
        length = mixed_length(seed=seed, step=step, max_context=max_context, shortest=self._shortest)
        takes, share_C = self._classes(length)
        if len(takes) == 1:
            return takes[0]
        lengths = training_lengths(max_context, self._shortest)
        place = _offset(seed) + (step // len(lengths)) * GOLDEN + lengths.index(length) / len(lengths)
        return takes[int(np.searchsorted(share_C, place % 1, side="right"))]

    def starts(self, random: np.random.Generator, take: Take, size_B: Positions) -> Positions:
        """Places of documents with at least `size` tokens from there on; every token of them equally often, nearly.

        Args:
            random: draws them.
            take: the step's.
            size_B: tokens of the text of each sequence, at most the `text_size` of the step's length.
        """
        low, high = int(self._before_D[take.first]), int(self._before_D[take.last])
        token_B = random.integers(low, high, size=len(size_B))
        document_B = np.searchsorted(self._before_D, token_B, side="right") - 1
        free_B = self._size_D[document_B] - size_B + 1
        # A place of its own within the document: the token's would leave out the document's end.
        found: Positions = self._start_D[document_B] + random.integers(free_B)
        return found

    def _made_classes(self, length: int) -> tuple[tuple[Take, ...], NDArray[np.float64]]:
        """What steps of a length take, and the upper end of the share that each has of them."""
        shortest = min(length, max(SHORTEST_DOCUMENT, self._shortest))
        sizes = (max(int(length * 2 ** (-quarter / 4)), shortest) for quarter in itertools.count())
        takes: list[Take] = []
        first = 0
        for size in sizes:
            last = int(np.searchsorted(-self._size_D, -self._text_size(size), side="right"))
            if last > first:
                takes.append(Take(size, first, last))
            first = last
            if size == shortest:
                break
        ends = np.array([self._before_D[take.last] for take in takes], dtype=np.float64)
        return tuple(takes), ends / ends[-1:]


@lru_cache(maxsize=64)
def _offset(seed: int) -> float:
    return float(generator(Purpose.CLASSES, seed=seed).random())
