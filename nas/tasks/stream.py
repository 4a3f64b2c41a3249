"""The documents of a part in one row, and which places of it are scored.

In: documents. Out: tokens, each document behind `<document>`, and stretches of them that depend on
nothing but the part, so that every candidate is scored on the same text.

Legend: T tokens of a part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from nas.records import Split
from nas.tasks.metrics import IGNORED

# Enough places of a part to speak for it, few enough that long contexts are not read for little.
MOST_SEGMENTS = 16
SHORTEST_SEGMENT = 256
TEST_BYTES_FACTOR = 4


@dataclass(frozen=True)
class Stream:
    """The documents of a part in one row.

    Attributes:
        tokens_T: bytes, and `<document>` before each document.
        document: the token `<document>`.
        inputs_T: every token but the last.
        targets_T: the byte that follows each, or −100 where a document ends.
    """

    tokens_T: NDArray[np.int16]
    document: int
    inputs_T: NDArray[np.int16]
    targets_T: NDArray[np.int16]

    @property
    def is_byte_T(self) -> NDArray[np.bool_]:  # noqa: N802
        """Which tokens are bytes."""
        found: NDArray[np.bool_] = self.tokens_T != self.document
        return found


def join_documents(documents: Sequence[bytes], document: int) -> Stream:
    """The documents in their order."""
    tokens_T = np.empty(sum(map(len, documents)) + len(documents), dtype=np.int16)
    at = 0
    for text in documents:
        tokens_T[at] = document
        tokens_T[at + 1 : at + 1 + len(text)] = np.frombuffer(text, dtype=np.uint8)
        at += 1 + len(text)
    targets_T = tokens_T[1:].copy()
    targets_T[targets_T == document] = IGNORED
    return Stream(tokens_T, document, tokens_T[:-1], targets_T)


def segments(may_score_T: NDArray[np.bool_], evaluation_bytes: int, split: Split) -> list[tuple[int, int]]:
    """Stretches that hold as many places to score, or all there are, evenly spaced over the part.

    Args:
        may_score_T: the places.
        evaluation_bytes: how many of them; the test part has four times as many.
        split: the part's name.
    """
    places = np.flatnonzero(may_score_T)
    wanted = min(evaluation_bytes * (TEST_BYTES_FACTOR if split == "test" else 1), len(places))
    count = max(1, min(MOST_SEGMENTS, wanted // SHORTEST_SEGMENT))
    left_out = len(places) - wanted
    found = []
    for index in range(count):
        skipped = left_out * (2 * index + 1) // (2 * count)
        first = skipped + wanted * index // count
        last = skipped + wanted * (index + 1) // count
        found.append((int(places[first]), int(places[last - 1]) + 1))
    return found
