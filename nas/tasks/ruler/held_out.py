"""Held-out examples of one length, and what their generated answers score.

In: examples. Out: what evaluation reads of them, and the recall of answers.

Legend: E examples, T tokens of all of them in one row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from nas.errors import DataError
from nas.tasks.base import IGNORED
from nas.tasks.metrics import MeanNats, Metrics
from nas.tasks.ruler.kinds import Example

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class HeldOut:
    """Examples in one row, each with its answer behind its prompt.

    Attributes:
        length: that they were made at; none is longer.
        tokens_T: uint32.
        prompt_E: where each begins.
        answer_E: where its answer begins.
        end_E: one past its last token.
        kinds_E: the kind of each.
        expected_E: what its answer must hold.
        shown_E: how many things of that sort its prompt shows.
        depths_E: where what is asked for stands (see `Example`).
    """

    length: int
    tokens_T: NDArray[np.uint32]
    prompt_E: Ints
    answer_E: Ints
    end_E: Ints
    kinds_E: tuple[str, ...]
    expected_E: tuple[tuple[tuple[int, ...], ...], ...]
    shown_E: tuple[int, ...]
    depths_E: tuple[tuple[float, ...], ...]

    def targets(self) -> Ints:
        """At each token the one to be said next, −100 where that is no token of an answer: (T,)."""
        targets_T = np.full(len(self.tokens_T), IGNORED, dtype=np.int64)
        for start, end in zip(self.answer_E.tolist(), self.end_E.tolist(), strict=True):
            targets_T[start - 1 : end - 1] = self.tokens_T[start:end]
        return targets_T


def held_out(examples: Sequence[Example], kinds: Sequence[str], length: int) -> HeldOut:
    """The examples, which are of these kinds, in one row."""
    tokens_T = np.array([token for found in examples for token in (*found.prompt, *found.answer)], dtype=np.uint32)
    end_E = np.cumsum([len(found.prompt) + len(found.answer) for found in examples], dtype=np.int64)
    return HeldOut(
        length=length,
        tokens_T=tokens_T,
        prompt_E=np.concatenate([[0], end_E[:-1]]),
        answer_E=end_E - np.array([len(found.answer) for found in examples]),
        end_E=end_E,
        kinds_E=tuple(kinds),
        expected_E=tuple(found.expected for found in examples),
        shown_E=tuple(found.shown for found in examples),
        depths_E=tuple(found.depths for found in examples),
    )


@dataclass(frozen=True)
class Asked:
    """What is known of a question whose answer comes in.

    Attributes:
        kind: of its example.
        expected: what the answer must hold.
        is_own: whether its example has the length that the task's own score is measured on.
    """

    kind: str
    expected: tuple[tuple[int, ...], ...]
    is_own: bool


def recall(answer: Sequence[int], expected: Sequence[Sequence[int]]) -> float:
    """The share of the expected pieces that stand in the answer, each token after the other.

    >>> recall([5, 1, 2, 9], [[1, 2], [2, 1], [9]])
    0.6666666666666666
    """
    held = [any(list(answer[at : at + len(piece)]) == list(piece) for at in range(len(answer))) for piece in expected]
    return sum(held) / len(held)


class RecallMetrics(Metrics):
    """ruler_loss by teacher forcing, and the recall of generated answers.

    Args:
        find: what is known of a question, by the number of its example.
        kinds: that are told apart; none where there is but one.
    """

    def __init__(self, find: Callable[[int], Asked], kinds: Sequence[str]) -> None:
        super().__init__({"ruler_loss": MeanNats()})
        self._find = find
        self._kinds = tuple(kinds)
        self._own: dict[str, list[float]] = {}
        self._others: list[float] = []

    def answer(self, example: int, tokens: list[int]) -> None:
        """Takes in one answer."""
        asked = self._find(example)
        found = recall(tokens, asked.expected)
        if asked.is_own:
            self._own.setdefault(asked.kind, []).append(found)
        else:
            self._others.append(found)

    def compute(self) -> dict[str, float]:
        """Every metric by name.

        Raises:
            DataError: nothing was scored or answered.
            DivergedError: the loss is no finite number.
        """
        values = super().compute()
        own = [found for part in self._own.values() for found in part]
        if not own:
            raise DataError("no answer was given: recall needs the answer to at least one question")
        values["ruler_recall"] = fmean(own)
        # Where the context is the length itself, its examples are asked once and count for both.
        values["ruler_recall_by_length"] = fmean(self._others or own)
        for kind in self._kinds:
            values[f"ruler_recall_{kind}"] = fmean(self._own[kind])
        return values
