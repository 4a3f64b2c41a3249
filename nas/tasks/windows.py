"""How a sequence is read by a model whose context is shorter than it.

In: arrays of inputs and targets, and the stretches of them that are to be scored. Out: batches of
windows in which every position of those stretches is scored exactly once.

A window advances by half the context. For a model that reads from left to right its second half is
scored, its first half only read, so a scored position sees between half a context and a full one.
For a model that sees both sides the middle half is scored. Whatever the context, the positions that
are scored are the same; candidates of different contexts are compared on the same bytes.

Legend: T positions of the whole sequence, W windows, B windows of a batch, L positions of a window.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import DataError
from nas.tasks.base import IGNORED, Batch
from nas.tasks.inputs import Inputs

Positions = NDArray[np.int64]
Tokens = NDArray[np.integer[Any]]
Reader = Callable[[Positions], tuple[Positions, Positions]]
"""What stands at places of a sequence, and what is to be said there: int64."""


@dataclass(frozen=True)
class Windows:
    """Stretches of a sequence that are read at once, and what is scored of each.

    Attributes:
        start_W: the first position that is read.
        scored_W: the first position that is scored.
        end_W: one past the last position that is read.
        until_W: one past the last position that is scored.
    """

    start_W: Positions
    scored_W: Positions
    end_W: Positions
    until_W: Positions

    def __len__(self) -> int:
        return len(self.start_W)

    def take(self, index_B: NDArray[Any]) -> Windows:
        """The windows at these places of the row of windows."""
        return Windows(self.start_W[index_B], self.scored_W[index_B], self.end_W[index_B], self.until_W[index_B])

    def move(self, by_W: Positions) -> Windows:
        """The windows further on, each by its own distance."""
        return Windows(self.start_W + by_W, self.scored_W + by_W, self.end_W + by_W, self.until_W + by_W)


def scored_windows(first: int, last: int, *, context: int) -> Windows:
    """The windows that score each position of first..last−1 once, in order.

    Args:
        first: first position to score; what lies before it, down to position 0, may be read.
        last: one past the last position to score.
        context: most positions of a window, the stride being half of it (rounded down, at least 1).
    """
    if context < 1:
        raise DataError(f"a context has at least 1 token, not {context}")
    stride = max(context // 2, 1)
    # At the start of the sequence there is nothing to read first: that window is scored throughout.
    ends = [max(first + stride, context)]
    while ends[-1] < last:
        ends.append(ends[-1] + stride)
    end_W = np.array(ends, dtype=np.int64)
    scored_W = np.concatenate([[first], end_W[:-1]])
    start_W, end_W = np.maximum(end_W - context, 0), np.minimum(end_W, last)
    return Windows(start_W, scored_W, end_W, end_W)


def surrounded_windows(first: int, last: int, *, context: int, size: int) -> Windows:
    """The windows that score each position of first..last−1 once, in order, with text on both sides.

    The middle half of a window is scored: a scored position sees at least a quarter of the context
    on either side, or all that there is.

    Args:
        first: first position to score.
        last: one past the last position to score.
        context: most positions of a window, the stride being half of it (rounded down, at least 1).
        size: positions of the whole sequence, all of which may be read.
    """
    if context < 1:
        raise DataError(f"a context has at least 1 token, not {context}")
    stride = max(context // 2, 1)
    scored_W = np.arange(first, last, stride, dtype=np.int64)
    # At either end of the sequence the window is moved inwards: its room is not wasted.
    start_W = np.clip(scored_W - (context - stride) // 2, 0, max(size - context, 0))
    return Windows(start_W, scored_W, np.minimum(start_W + context, size), np.minimum(scored_W + stride, last))


def join(parts: list[Windows]) -> Windows:
    """The windows of several stretches of one sequence."""
    return Windows(
        np.concatenate([part.start_W for part in parts]),
        np.concatenate([part.scored_W for part in parts]),
        np.concatenate([part.end_W for part in parts]),
        np.concatenate([part.until_W for part in parts]),
    )


def read(inputs_T: Tokens, targets_T: Tokens, windows: Windows, *, length: int, bounded: bool = False) -> Batch:
    """`read_from` of a sequence that lies in two arrays."""
    return read_from(_of_arrays(inputs_T, targets_T), windows, length=length, bounded=bounded)


def read_from(reader: Reader, windows: Windows, *, length: int, bounded: bool = False) -> Batch:
    """One batch: a row for each window, filled up to `length` on the right with unscored zeros.

    Args:
        reader: of the whole sequence.
        windows: one for each row.
        length: of the rows.
        bounded: whether the batch says where its rows end; a causal model is not touched by what
            stands on the right, every other one needs it.
    """
    position_BL = windows.start_W[:, None] + np.arange(length)
    inside_BL = position_BL < windows.end_W[:, None]
    scored_BL = (position_BL >= windows.scored_W[:, None]) & (position_BL < windows.until_W[:, None])
    inputs_BL, targets_BL = reader(np.where(inside_BL, position_BL, windows.start_W[:, None]))
    inputs_BL = np.where(inside_BL, inputs_BL, 0)
    targets_BL = np.where(scored_BL, targets_BL, IGNORED)
    is_padded = bounded and not inside_BL.all()
    lengths_B = torch.from_numpy(inside_BL.sum(axis=1)) if is_padded else None
    return Batch(Inputs(torch.from_numpy(inputs_BL), lengths_B), torch.from_numpy(targets_BL))


def chunks(windows: Windows, *, tokens_per_batch: int) -> Iterator[tuple[Windows, int]]:
    """All windows in groups of at most `tokens_per_batch` tokens (or one window), longest first.

    Yields:
        the windows of a group, and the length of its longest.
    """
    lengths_W = windows.end_W - windows.start_W
    order_W = np.argsort(-lengths_W, kind="stable")
    at = 0
    while at < len(order_W):
        length = int(lengths_W[order_W[at]])
        rows = max(tokens_per_batch // length, 1)
        yield windows.take(order_W[at : at + rows]), length
        at += rows


def batches(
    inputs_T: Tokens, targets_T: Tokens, windows: Windows, *, tokens_per_batch: int, bounded: bool = False
) -> Iterator[Batch]:
    """`batches_from` of a sequence that lies in two arrays."""
    return batches_from(_of_arrays(inputs_T, targets_T), windows, tokens_per_batch=tokens_per_batch, bounded=bounded)


def batches_from(reader: Reader, windows: Windows, *, tokens_per_batch: int, bounded: bool = False) -> Iterator[Batch]:
    """All windows in batches of at most `tokens_per_batch` tokens (or one window), longest first."""
    for found, length in chunks(windows, tokens_per_batch=tokens_per_batch):
        yield read_from(reader, found, length=length, bounded=bounded)


def _of_arrays(inputs_T: Tokens, targets_T: Tokens) -> Reader:
    return lambda position_N: (inputs_T[position_N].astype(np.int64), targets_T[position_N].astype(np.int64))
