"""How a sequence is read by a model whose context is shorter than it.

In: arrays of inputs and targets, and the stretches of them that are to be scored. Out: batches of
windows in which every position of those stretches is scored exactly once.

A window advances by half the context: its second half is scored, its first half only read, so a
scored position sees between half a context and a full one. Whatever the context, the positions
that are scored are the same; candidates of different contexts are compared on the same bytes.

Legend: T positions of the whole sequence, W windows, B windows of a batch, L positions of a window.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from nas.errors import DataError
from nas.tasks.base import IGNORED, Batch

Positions = NDArray[np.int64]
Tokens = NDArray[np.integer[Any]]


@dataclass(frozen=True)
class Windows:
    """Stretches of a sequence.

    Attributes:
        start_W: the first position that is read.
        scored_W: the first position that is scored.
        end_W: one past the last position that is read and scored.
    """

    start_W: Positions
    scored_W: Positions
    end_W: Positions

    def __len__(self) -> int:
        return len(self.start_W)

    def take(self, index_B: NDArray[Any]) -> Windows:
        """The windows at these places of the row of windows."""
        return Windows(self.start_W[index_B], self.scored_W[index_B], self.end_W[index_B])

    def move(self, by_W: Positions) -> Windows:
        """The windows further on, each by its own distance."""
        return Windows(self.start_W + by_W, self.scored_W + by_W, self.end_W + by_W)


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
    return Windows(np.maximum(end_W - context, 0), scored_W, np.minimum(end_W, last))


def join(parts: list[Windows]) -> Windows:
    """The windows of several stretches of one sequence."""
    return Windows(
        np.concatenate([part.start_W for part in parts]),
        np.concatenate([part.scored_W for part in parts]),
        np.concatenate([part.end_W for part in parts]),
    )


def read(inputs_T: Tokens, targets_T: Tokens, windows: Windows, *, length: int) -> Batch:
    """One batch: a row for each window, filled up to `length` on the right with unscored zeros.

    A causal model is not touched by what stands on the right.
    """
    position_BL = windows.start_W[:, None] + np.arange(length)
    inside_BL = position_BL < windows.end_W[:, None]
    scored_BL = inside_BL & (position_BL >= windows.scored_W[:, None])
    position_BL = np.where(inside_BL, position_BL, 0)
    inputs_BL = np.where(inside_BL, inputs_T[position_BL], 0).astype(np.int64)
    targets_BL = np.where(scored_BL, targets_T[position_BL], IGNORED).astype(np.int64)
    return Batch(torch.from_numpy(inputs_BL), torch.from_numpy(targets_BL))


def batches(inputs_T: Tokens, targets_T: Tokens, windows: Windows, *, tokens_per_batch: int) -> Iterator[Batch]:
    """All windows in batches of at most `tokens_per_batch` tokens (or one window), longest first."""
    lengths_W = windows.end_W - windows.start_W
    order_W = np.argsort(-lengths_W, kind="stable")
    at = 0
    while at < len(order_W):
        length = int(lengths_W[order_W[at]])
        rows = max(tokens_per_batch // length, 1)
        yield read(inputs_T, targets_T, windows.take(order_W[at : at + rows]), length=length)
        at += rows
