"""What of a question and its context is read at once, and what is to be said of it.

    <document> question <separator> context <separator> <end>

Every token of the context may begin a span, and a span ends before the token that follows it: the one
behind its last. So a causal model has seen what follows an answer when it says that the answer ends: that
"1" is not the beginning of "12". No answer is the empty span that begins and ends at `<end>`, the last
token, which has seen everything in either direction and ends no other span. (BERT's stands at the first
token, where a causal model has seen nothing: Devlin et al. 2019, section 4.3.)

A context longer than its room is cut, or read in windows that advance by half the room. The question has
what the context leaves, and at least half.

In training, a window of a long context holds the answer in half of the draws at least: with probability
`HOLDING_SHARE` it is drawn from those that hold it, else from all, everywhere alike. At evaluation every
window is read.

Legend: N examples, W views of contexts, B sequences, L positions.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from nas.errors import DataError
from nas.tasks.inputs import Inputs
from nas.tasks.metrics import IGNORED
from nas.tasks.texts import Views, views
from nas.tasks.tokenizers import Tokenizer
from nas.tasks.windows import Positions

END, SEPARATOR = "<end>", "<separator>"
# <document>, <separator> twice and <end>.
MARKS: Final = 4
SHORTEST: Final = 8
HOLDING_SHARE: Final = 0.5

# What is said of a position: whether the span begins there and whether it ends before it, each IGNORED
# where it cannot; and which token of the context stands there, IGNORED elsewhere.
STARTS, ENDS, PLACE = 0, 1, 2


@dataclass(frozen=True)
class QuestionViews:
    """What is read at once of questions and contexts.

    Attributes:
        views: of contexts.
        question_W: how many tokens of the question are read before each.
    """

    views: Views
    question_W: Positions

    @property
    def length_W(self) -> Positions:  # noqa: N802
        """Tokens of each, marks included."""
        return self.views.length_W + self.question_W + MARKS

    def take(self, index: NDArray[np.int64]) -> QuestionViews:
        """Those at these places."""
        return QuestionViews(self.views.take(index), self.question_W[index])

    def holds(self, first_W: Positions, end_W: Positions) -> NDArray[np.bool_]:
        """Whether each holds a span of its context whole; none holds one that begins below 0."""
        found = self.views
        in_head_W = (first_W >= found.head_W) & (end_W <= found.head_W + found.size_W)
        in_tail_W = (first_W >= found.tail_W) & (end_W <= found.tail_W + found.tail_size_W)
        return (in_head_W | in_tail_W) & (first_W >= 0)


def check_context(context: int) -> None:
    """Raises DataError where not even a short question and a few tokens of its context fit."""
    if context < SHORTEST:
        text = f"a question and a context need {SHORTEST} tokens at least, not {context}"
        raise DataError(f"{text}: nearest {SHORTEST}")


def rooms(question_N: Positions, context_N: Positions, context: int) -> tuple[Positions, Positions]:
    """How many tokens of each question are read, and how many of its context may be.

    Raises:
        DataError: nothing fits.
    """
    check_context(context)
    kept_N = np.minimum(question_N, np.maximum(context // 2 - 2, context - MARKS - context_N))
    return kept_N, context - MARKS - kept_N


def question_views(
    number_N: Positions, question_N: Positions, context_N: Positions, context: int, too_long: str
) -> QuestionViews:
    """What a model's context holds of questions and contexts; of windows, all of them.

    Args:
        number_N: which examples.
        question_N: tokens of their questions.
        context_N: tokens of their contexts.
        context: most tokens that are read at once.
        too_long: "truncate", "head_tail" or "window".
    """
    kept_N, room_N = rooms(question_N, context_N, context)
    place_N = np.arange(len(number_N))
    found = views(place_N, context_N, room_N, too_long)
    chosen = found.text_W
    named = Views(number_N[chosen], found.head_W, found.size_W, found.tail_W, found.tail_size_W)
    return QuestionViews(named, kept_N[chosen])


def drawn_question_views(
    random: np.random.Generator,
    number_B: Positions,
    question_B: Positions,
    context_B: Positions,
    span_B2: Positions,
    context: int,
    too_long: str,
) -> QuestionViews:
    """One view of each example; of windows one at random, more often one that holds the answer.

    Args: as of `question_views`, and
        random: of the step.
        span_B2: the answers, in tokens of the context; below 0 where there is none.
    """
    if too_long != "window":
        return question_views(number_B, question_B, context_B, context, too_long)
    kept_B, room_B = rooms(question_B, context_B, context)
    size_B = np.minimum(context_B, room_B)
    first_B, end_B = span_B2[:, 0], span_B2[:, 1]
    wants_B = random.random(len(number_B)) < HOLDING_SHARE
    holds_B = wants_B & (first_B >= 0) & (end_B - first_B <= size_B)
    lowest_B = np.where(holds_B, np.maximum(end_B - size_B, 0), 0)
    highest_B = np.where(holds_B, np.minimum(first_B, context_B - size_B), context_B - size_B)
    head_B = lowest_B + random.integers(highest_B - lowest_B + 1)
    return QuestionViews(Views(number_B, head_B, size_B, context_B, np.zeros_like(head_B)), kept_B)


def grouped_views(found: QuestionViews, tokens_per_batch: int) -> Iterator[tuple[QuestionViews, int]]:
    """Views in groups of at most so many tokens (or one view), longest first, and the length of the longest."""
    order = np.argsort(-found.length_W, kind="stable")
    at = 0
    while at < len(order):
        length = int(found.length_W[order[at]])
        rows = max(tokens_per_batch // length, 1)
        yield found.take(order[at : at + rows]), length
        at += rows


def read_view(
    tokenizer: Tokenizer,
    question: NDArray[Any],
    context: NDArray[Any],
    found: QuestionViews,
    row: int,
    span: tuple[int, int] = (-1, -1),
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The tokens of a view, (L,), and what is to be said of them, (L, 3).

    Args:
        tokenizer: with the marks.
        question: its tokens.
        context: its tokens.
        found: all views.
        row: which of them.
        span: the answer, in tokens of the context.
    """
    head, size = int(found.views.head_W[row]), int(found.views.size_W[row])
    tail, tail_size = int(found.views.tail_W[row]), int(found.views.tail_size_W[row])
    kept = int(found.question_W[row])
    place_C = np.concatenate([np.arange(head, head + size), np.arange(tail, tail + tail_size)])
    tokens_L = np.empty(len(place_C) + kept + MARKS, dtype=np.int64)
    before = kept + 2
    tokens_L[0], tokens_L[before - 1] = tokenizer.document, tokenizer.special(SEPARATOR)
    tokens_L[1 : before - 1] = question[:kept]
    tokens_L[before:-2] = context[place_C]
    tokens_L[-2:] = tokenizer.special(SEPARATOR), tokenizer.special(END)
    said_L3 = np.full((len(tokens_L), 3), IGNORED, dtype=np.int64)
    said_L3[before:-2, STARTS] = said_L3[before + 1 : -1, ENDS] = 0
    said_L3[-1, [STARTS, ENDS]] = 0
    said_L3[before:-2, PLACE] = place_C
    first, end = span
    starts = ends = len(tokens_L) - 1
    if head <= first and end <= head + size:
        starts, ends = before + first - head, before + end - head
    elif tail <= first and end <= tail + tail_size:
        starts, ends = before + size + first - tail, before + size + end - tail
    said_L3[starts, STARTS] = said_L3[ends, ENDS] = 1
    return tokens_L, said_L3


def padded(rows: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], length: int) -> tuple[Inputs, Tensor]:
    """What `read_view` gave, filled up to a length: what is read, and what is to be said, (B, L, 3)."""
    tokens_BL = np.zeros((len(rows), length), dtype=np.int64)
    said_BL3 = np.full((len(rows), length, 3), IGNORED, dtype=np.int64)
    lengths_B = torch.tensor([len(tokens_L) for tokens_L, _ in rows])
    for row, (tokens_L, said_L3) in enumerate(rows):
        tokens_BL[row, : len(tokens_L)] = tokens_L
        said_BL3[row, : len(tokens_L)] = said_L3
    is_full = bool((lengths_B == length).all())
    return Inputs(torch.from_numpy(tokens_BL), None if is_full else lengths_B), torch.from_numpy(said_BL3)
