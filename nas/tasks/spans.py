"""Which stretches of a text become blanks or are dropped.

In: a generator of random numbers, and how much of a text is to go. Out: spans.

    poisson_spans, tail_spans    the blanks of GLM (Du et al. 2022)
    noise_spans                  the dropped spans of T5 (Raffel et al. 2020)

The random numbers are drawn for all rows at once: no function loops over rows or spans.

Legend: B rows, N numbers to choose from, K spans of all rows, M most spans of a row.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nas.specs.tasks import LONGEST_SPAN

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Spans:
    """Stretches of the texts of a batch, by row and then by place; no two overlap.

    Attributes:
        row_K: whose text.
        start_K: its first token.
        length_K: tokens, at least 1.
        scored_K: whether a model is to say it.
    """

    row_K: Ints
    start_K: Ints
    length_K: Ints
    scored_K: Bools

    @staticmethod
    def of(row_K: Ints, start_K: Ints, length_K: Ints) -> Spans:
        """Spans that are all scored."""
        return Spans(row_K, start_K, length_K, np.ones(len(row_K), dtype=np.bool_))

    def take(self, index_K: NDArray[Any]) -> Spans:
        """The spans at these places."""
        return Spans(self.row_K[index_K], self.start_K[index_K], self.length_K[index_K], self.scored_K[index_K])


def poisson_spans(
    random: np.random.Generator, *, rows: int, length: int, rate: float, mean: float, added: int = 2
) -> tuple[Spans, Ints]:
    """Blanks of Poisson lengths, drawn until they cover the share of the text (Du et al. 2022).

    The lengths are those of a Poisson law from 1 on (a blank of nothing asks nothing), at most eight
    times its mean. Their places are uniform among all at which no two touch.

    Args:
        random: draws them.
        rows: B.
        length: of a sequence: the text is shorter by what its blanks add.
        rate: share of the text to cover at least.
        mean: of the Poisson law.
        added: tokens that each blank adds to a sequence: 2 for `infill`, its mask aside.

    Returns:
        the spans, and the tokens of each text, (B,): `length` less `added` for each of its spans.
    """
    most = max(1, min(math.ceil(rate * length / (1 + added * rate)), (length + 1) // (added + 2)))
    total_BM = np.cumsum(_poisson_from_one(random, (rows, most), mean), axis=1)
    enough_BM = total_BM >= rate * (length - added * np.arange(1, most + 1))
    count_B = np.where(enough_BM.any(axis=1), enough_BM.argmax(axis=1) + 1, most)
    size_B = length - added * count_B
    # Short texts: the spans leave a token between them, and each of the last ones keeps a token.
    left_BM = count_B[:, None] - 1 - np.arange(most)
    total_BM = np.minimum(total_BM, (size_B - count_B + 1)[:, None] - left_BM)
    is_span_BM = left_BM >= 0
    length_BM = np.diff(total_BM, axis=1, prepend=0)
    spare_B = size_B - total_BM[np.arange(rows), count_B - 1] - count_B + 1
    slot_K = _choose(random, spare_B + count_B, count_B)
    row_K, place_K = np.nonzero(is_span_BM)
    # Before a span stand the spare tokens and the one gap for each span before, its slot in all.
    start_K = slot_K + (total_BM - length_BM)[row_K, place_K]
    return Spans.of(row_K, start_K, length_BM[row_K, place_K]), size_B


def tail_spans(random: np.random.Generator, *, rows: int, size: int) -> Spans:
    """One blank for each text, at its end, over a half of it up to all (Du et al. 2022)."""
    length_B = random.integers(max((size + 1) // 2, 1), size + 1, size=rows)
    return Spans.of(np.arange(rows), size - length_B, length_B)


def noise_spans(random: np.random.Generator, *, rows: int, size: int, rate: float, mean: float) -> Spans:
    """Dropped spans by random segmentation (Raffel et al. 2020).

    The number of dropped tokens and that of spans are fixed; dropped and kept tokens are each cut
    at random into as many segments, which alternate: a text begins with a kept one.
    """
    noise, count = noise_size(size, rate, mean)
    length_BM = random_segments(random, rows=rows, items=noise, segments=count)
    kept_BM = random_segments(random, rows=rows, items=size - noise, segments=count)
    start_BM = np.cumsum(kept_BM, axis=1) + np.cumsum(length_BM, axis=1) - length_BM
    return Spans.of(np.repeat(np.arange(rows), count), start_BM.ravel(), length_BM.ravel())


def noise_size(size: int, rate: float, mean: float) -> tuple[int, int]:
    """Tokens and spans that `noise_spans` drops of a text of `size` tokens, at least 2."""
    noise = min(max(round(size * rate), 1), size - 1)
    return noise, min(max(round(noise / mean), 1), noise, size - noise)


def random_segments(random: np.random.Generator, *, rows: int, items: int, segments: int) -> Ints:
    """Lengths of segments, at least 1 each, all such cuts equally likely, (rows, segments)."""
    first = np.argsort(random.random((rows, items - 1)), axis=1)[:, : segments - 1]
    return np.diff(np.sort(first, axis=1) + 1, axis=1, prepend=0, append=items)


@lru_cache(maxsize=256)
def corrupted_sizes(length: int, rate: float, mean: float) -> tuple[int, int, int]:
    """The longest text whose source and target both have at most `length` tokens, as T5 fits it.

    Returns:
        tokens of the text, of its source, and of its target.
    """
    # A source has at least the kept tokens and one sentinel.
    for size in range(min(2 * length, math.ceil(length / (1 - rate)) + 1), 1, -1):
        noise, count = noise_size(size, rate, mean)
        source, target = size - noise + count, noise + count + 1
        if max(source, target) <= length:
            return size, source, target
    raise ValueError(f"no text can be corrupted within {length} tokens")


def _poisson_from_one(random: np.random.Generator, shape: tuple[int, int], mean: float) -> Ints:
    lengths = np.arange(1, math.ceil(LONGEST_SPAN * mean) + 1)
    log_weights = lengths * math.log(mean) - np.array([math.lgamma(length + 1) for length in lengths])
    shares = np.cumsum(np.exp(log_weights - log_weights.max()))
    drawn: Ints = 1 + np.searchsorted(shares, random.random(shape) * shares[-1], side="right")
    return drawn


def _choose(random: np.random.Generator, among_B: Ints, count_B: Ints) -> Ints:
    """For each row `count` of the numbers below `among`, without replacement, ascending, in one row."""
    numbers = np.arange(int(among_B.max()))
    key_BN = np.where(numbers < among_B[:, None], random.random((len(among_B), len(numbers))), 2.0)
    order_BN = np.argsort(key_BN, axis=1)
    chosen_BN = np.zeros(key_BN.shape, dtype=np.bool_)
    np.put_along_axis(chosen_BN, order_BN, numbers < count_B[:, None], axis=1)
    return np.nonzero(chosen_BN)[1]
