"""Texts of a task in tokens, cached, and how they fill batches.

In: records and a tokenizer. Out: each part's texts as rows of tokens in a file, batches of texts of
like length, and what of a text a context holds.

Training goes through the texts in epochs. They lie in classes of like length, whose longest text
decides the length of a step and with it how many texts it holds: a step has a fixed number of tokens,
padding included, and little padding. In each epoch every class is shuffled, and so are the steps; the
last step of a class is filled up from the class's beginning. All of that is a pure function of
(seed, epoch).

Legend: N texts of a part, B texts of a batch, L positions, C classes.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray

from nas.records import Split
from nas.tasks.base import Inputs, StepShape
from nas.tasks.data import Ragged
from nas.tasks.randomness import Purpose, generator
from nas.tasks.windows import Positions

CLASSES = 16
"""Classes of like length, equally many texts in each."""

TEST_FACTOR = 4


@dataclass(frozen=True)
class Step:
    """What a training step takes.

    Attributes:
        text_B: which texts.
        length: to which they are filled up.
        source_length: to which their sources are, where they have some apart.
    """

    text_B: Positions
    length: int
    source_length: int = 0


class Epochs:
    """The order in which the training texts are read.

    Args:
        length_N: tokens of each text.
        sizes: to which length, and which length of a source, texts are filled up in a context; by default
            the longest one's, and no source.
    """

    def __init__(self, length_N: Positions, sizes: Callable[[Positions, int], tuple[int, int]] | None = None) -> None:
        self._length_N = length_N
        self._size_of = sizes or (lambda text_N, context: (min(int(length_N[text_N].max()), context), 0))
        self._order_N = np.argsort(length_N, kind="stable")
        self._sizes = lru_cache(maxsize=64)(self._made_sizes)
        self._permuted = lru_cache(maxsize=CLASSES + 1)(self._made_permutation)

    @property
    def longest(self) -> int:
        """Tokens of the longest text."""
        return int(self._length_N.max())

    def shape(self, *, seed: int, step: int, tokens: int, max_context: int) -> StepShape:
        """The sizes of a step's batch."""
        *_, (length, source) = self._place(seed, step, tokens, max_context)
        return StepShape(tokens // (length + source), length, source)

    def step(self, *, seed: int, step: int, tokens: int, max_context: int) -> Step:
        """What a step takes: a pure function of its arguments."""
        class_, epoch, batch, (length, source) = self._place(seed, step, tokens, max_context)
        bounds = self._bounds
        rows, first, last = tokens // (length + source), int(bounds[class_]), int(bounds[class_ + 1])
        order = self._permuted(seed, epoch, 1 + class_, last - first)
        place_B = (batch * rows + np.arange(rows)) % (last - first)
        return Step(self._order_N[first + order[place_B]], length, source)

    @property
    def _bounds(self) -> Positions:
        count = min(CLASSES, len(self._order_N))
        return np.arange(count + 1) * len(self._order_N) // count

    def _place(self, seed: int, step: int, tokens: int, max_context: int) -> tuple[int, int, int, tuple[int, int]]:
        """Class, epoch, batch of the class, and the lengths of texts and sources."""
        lengths, before_C = self._sizes(tokens, max_context)
        epoch, place = divmod(step, int(before_C[-1]))
        drawn = int(self._permuted(seed, epoch, 0, int(before_C[-1]))[place])
        class_ = int(np.searchsorted(before_C, drawn, side="right")) - 1
        return class_, epoch, drawn - int(before_C[class_]), lengths[class_]

    def _made_sizes(self, tokens: int, max_context: int) -> tuple[tuple[tuple[int, int], ...], Positions]:
        """The lengths of each class, and the steps of an epoch before it."""
        classes = [self._order_N[first:last] for first, last in itertools.pairwise(self._bounds)]
        lengths = tuple(self._size_of(text_N, max_context) for text_N in classes)
        steps = [-(-len(text_N) // (tokens // sum(size))) for text_N, size in zip(classes, lengths, strict=True)]
        return lengths, np.concatenate([[0], np.cumsum(steps)])

    def _made_permutation(self, seed: int, epoch: int, place: int, size: int) -> Positions:
        random = generator(Purpose.ORDER, seed=seed, step=epoch * (CLASSES + 1) + place)
        return random.permutation(size)


def held_out(size: int, wanted: int, split: Split) -> Positions:
    """Which of a held-out part's texts are scored: all, or so many, evenly spaced."""
    count = min(size, wanted * (TEST_FACTOR if split == "test" else 1))
    return np.arange(count) * size // count


@dataclass(frozen=True)
class Views:
    """What is read of texts at once.

    Attributes:
        text_W: of which text.
        head_W: the first token that is read.
        size_W: how many are read from there on.
        tail_W: the first token of a second piece; behind the text where there is none.
        tail_size_W: how many are read of it.
    """

    text_W: Positions
    head_W: Positions
    size_W: Positions
    tail_W: Positions
    tail_size_W: Positions

    @property
    def length_W(self) -> Positions:  # noqa: N802
        """Tokens of each."""
        return self.size_W + self.tail_size_W

    def take(self, index: NDArray[np.int64]) -> Views:
        """Those at these places."""
        return Views(
            self.text_W[index],
            self.head_W[index],
            self.size_W[index],
            self.tail_W[index],
            self.tail_size_W[index],
        )


def views(text_N: Positions, length_N: Positions, context: int | Positions, too_long: str) -> Views:
    """What a context holds of texts (see `TOO_LONG`); of windows, all of them.

    Args:
        text_N: which texts.
        length_N: their tokens.
        context: most tokens that are read at once; of each text its own, or one for all.
        too_long: "truncate", "head_tail" or "window".
    """
    nothing = np.zeros_like(text_N)
    context = np.broadcast_to(context, length_N.shape)
    if too_long == "window":
        stride_N = np.maximum(context // 2, 1)
        count_N = 1 + np.maximum(-(-(length_N - context) // stride_N), 0)
        which = np.repeat(np.arange(len(text_N)), count_N)
        number_W = np.arange(len(which)) - np.repeat(np.cumsum(count_N) - count_N, count_N)
        # The last window ends where the text does.
        head_W = np.minimum(number_W * stride_N[which], np.maximum(length_N - context, 0)[which])
        size_W = np.minimum(length_N, context)[which]
        return Views(text_N[which], head_W, size_W, length_N[which], np.zeros_like(head_W))
    if too_long == "head_tail":
        is_cut_N = length_N > context
        tail_N = np.where(is_cut_N, context // 2, 0)
        return Views(text_N, nothing, np.where(is_cut_N, context - tail_N, length_N), length_N - tail_N, tail_N)
    return Views(text_N, nothing, np.minimum(length_N, context), length_N, nothing)


def drawn_views(random: np.random.Generator, text_B: Positions, length_B: Positions, context: int, how: str) -> Views:
    """One view of each text; of windows, one at random."""
    if how != "window":
        return views(text_B, length_B, context, how)
    size_B = np.minimum(length_B, context)
    head_B = random.integers(length_B - size_B + 1)
    return Views(text_B, head_B, size_B, length_B, np.zeros_like(head_B))


def cut_share(length_N: Positions, context: int, too_long: str) -> float:
    """The share of the texts' tokens that no view holds."""
    if too_long == "window":
        return 0.0
    return float(np.maximum(length_N - context, 0).sum() / length_N.sum())


def read_views(texts: Ragged, found: Views, length: int) -> Inputs:
    """The tokens of views, (B, L), filled up to `length` with zeros."""
    at_L = np.arange(length)
    start_B1 = texts.offsets[found.text_W][:, None]
    in_head_BL = at_L < found.size_W[:, None]
    in_tail_BL = (at_L >= found.size_W[:, None]) & (at_L < found.length_W[:, None])
    place_BL = np.where(
        in_head_BL,
        found.head_W[:, None] + at_L,
        np.where(in_tail_BL, found.tail_W[:, None] + at_L - found.size_W[:, None], 0),
    )
    tokens_BL = texts.flat[start_B1 + place_BL].astype(np.int64)
    tokens_BL[~(in_head_BL | in_tail_BL)] = 0
    is_full = bool((found.length_W == length).all())
    return Inputs(torch.from_numpy(tokens_BL), None if is_full else torch.from_numpy(found.length_W.copy()))


def grouped(found: Views, tokens_per_batch: int, more: int = 0) -> Iterator[tuple[Views, int]]:
    """Views in groups of at most so many tokens (or one view), longest first; each is read with so many more."""
    order = np.argsort(-found.length_W, kind="stable")
    at = 0
    while at < len(order):
        length = int(found.length_W[order[at]])
        rows = max(tokens_per_batch // (length + more), 1)
        yield found.take(order[at : at + rows]), length
        at += rows
