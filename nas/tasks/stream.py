"""The documents of a part in one row, and which places of it are scored.

In: tokens of documents, each behind `<document>`, and where each begins. Out: what is read and said at
any place of them, and stretches of them that depend on nothing but the part, so that every candidate
is scored on the same text.

No sequence holds tokens of two documents, unless the documents are to be read as one.

Legend: T tokens of a part, D documents, N any number of places.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.records import Split
from nas.tasks.metrics import IGNORED
from nas.tasks.windows import Positions, Tokens

# Enough places of a part to speak for it, few enough that long contexts are not read for little.
MOST_SEGMENTS = 16
SHORTEST_SEGMENT = 256
TEST_BYTES_FACTOR = 4
# The bytes before every so many tokens are kept, and counted from there.
MARK_EVERY = 4_096
# How far a stretch's edge may move to fall between words.
LONGEST_WORD = 256


@dataclass(frozen=True)
class Stretch:
    """Neighbouring places of one document, or of all that are read as one.

    Attributes:
        first: the first place that is scored.
        last: one past the last place that is scored.
        low: the first place that may be read.
        high: one past the last place that may be read.
    """

    first: int
    last: int
    low: int
    high: int


@dataclass(frozen=True)
class Stream:
    """The documents of a part in one row.

    Attributes:
        tokens_T: of the text, and `<document>` before each document; may lie in a file.
        offsets_D: where each document begins, and T: one more than there are documents.
        document: the token `<document>`.
        byte_lengths_V: bytes of text that each token stands for; None: one for each but `<document>`.
        begins_word: whether a place is one where every vocabulary has a token's edge; None: all are.
        crossing: whether all documents are read as one.
    """

    tokens_T: Tokens
    offsets_D: Positions
    document: int
    byte_lengths_V: NDArray[np.int64] | None = None
    begins_word: Callable[[int], bool] | None = None
    crossing: bool = False

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.offsets_D) - 1

    @property
    def bounds_D(self) -> Positions:  # noqa: N802
        """Where what is read as one document begins, and T."""
        return self.offsets_D[[0, -1]] if self.crossing else self.offsets_D

    def read(self, position_N: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The tokens at these places, and the tokens of the text behind them (−100 where a document ends)."""
        next_N = self.tokens_T[np.minimum(position_N + 1, len(self.tokens_T) - 1)].astype(np.int64)
        next_N[(next_N == self.document) | (position_N + 1 >= len(self.tokens_T))] = IGNORED
        return self.tokens_T[position_N].astype(np.int64), next_N

    def stretches(self, evaluation_bytes: int, split: Split) -> list[Stretch]:
        """Stretches of the text that hold so many bytes, or all there are, evenly spaced over the part.

        Where tokens are not bytes, they begin and end between words: at the same bytes for every
        vocabulary.

        Args:
            evaluation_bytes: how many; of the test part four times as many.
            split: the part's name.
        """
        size = self._bytes_before_M[-1] if self.byte_lengths_V is not None else len(self.tokens_T) - self.documents
        wanted = min(evaluation_bytes * (TEST_BYTES_FACTOR if split == "test" else 1), int(size))
        count = max(1, min(MOST_SEGMENTS, wanted // SHORTEST_SEGMENT))
        left_out = int(size) - wanted
        found: list[Stretch] = []
        end = 0
        for index in range(count):
            skipped = left_out * (2 * index + 1) // (2 * count)
            first = max(self._place_of(skipped + wanted * index // count), end)
            end = self._place_of(skipped + wanted * (index + 1) // count, end=True)
            found += self._by_document(first, end)
        return found

    def _by_document(self, first: int, last: int) -> Iterator[Stretch]:
        """The places first..last−1, cut where documents meet."""
        bounds_D = self.bounds_D
        index = int(np.searchsorted(bounds_D, first, side="right")) - 1
        while first < last:
            low, high = int(bounds_D[index]), int(bounds_D[index + 1])
            # `<document>` itself is never said.
            begin, until = max(first, low + 1), min(last, high)
            if begin < until:
                yield Stretch(begin, until, low, high)
            first, index = high, index + 1

    def _place_of(self, byte: int, *, end: bool = False) -> int:
        """Where the byte of that number stands, `<document>` not counted; with `end`, one past the byte before it."""
        if self.byte_lengths_V is None:
            number = byte - 1 if end else byte
            before_D = self.offsets_D[:-1] - np.arange(self.documents)
            return number + int(np.searchsorted(before_D, number, side="right")) + end
        if byte >= self._bytes_before_M[-1]:
            return len(self.tokens_T)
        mark = int(np.searchsorted(self._bytes_before_M, byte, side="right")) - 1
        here_N = self.byte_lengths_V[self.tokens_T[mark * MARK_EVERY : (mark + 1) * MARK_EVERY]]
        before_N = self._bytes_before_M[mark] + np.cumsum(here_N) - here_N
        # Of several tokens that begin at a byte only the last one holds it.
        place = mark * MARK_EVERY + int(np.searchsorted(before_N, byte, side="left"))
        return self._between_words(place)

    def _between_words(self, place: int) -> int:
        if self.begins_word is None:
            return place
        until = min(place + LONGEST_WORD, len(self.tokens_T))
        return next((at for at in range(place, until) if self.begins_word(at)), place)

    @cached_property
    def _bytes_before_M(self) -> Positions:  # noqa: N802
        """Bytes before each marked token, and of all."""
        assert self.byte_lengths_V is not None
        sums = [0]
        for at in range(0, len(self.tokens_T), MARK_EVERY):
            sums.append(sums[-1] + int(self.byte_lengths_V[self.tokens_T[at : at + MARK_EVERY]].sum()))
        return np.array(sums, dtype=np.int64)
