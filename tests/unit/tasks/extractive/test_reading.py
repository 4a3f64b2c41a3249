"""What of a question and a context is read, and what is to be said of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.errors import DataError
from nas.tasks.extractive.reading import (
    ENDS,
    HOLDING_SHARE,
    MARKS,
    PLACE,
    STARTS,
    drawn_question_views,
    grouped_views,
    padded,
    question_views,
    read_view,
    rooms,
)
from nas.tasks.metrics import IGNORED
from nas.tasks.tokenizers import ByteTokenizer

TOKENIZER = ByteTokenizer(["<end>", "<separator>"])
DOCUMENT, END, SEPARATOR = 256, 257, 258
SIZES = st.lists(st.tuples(st.integers(1, 20), st.integers(1, 60)), min_size=1, max_size=10)
WAYS = ["truncate", "head_tail", "window"]


def one(value: int) -> np.ndarray:
    return np.array([value])


@given(SIZES, st.integers(8, 50), st.sampled_from(WAYS))
@settings(deadline=None)
def test_a_view_is_a_question_and_what_has_room_of_its_context(
    sizes: list[tuple[int, int]], context: int, how: str
) -> None:
    question_N, context_N = np.array(sizes).T
    kept_N, room_N = rooms(question_N, context_N, context)
    found = question_views(np.arange(len(sizes)), question_N, context_N, context, how)
    seen: dict[int, list[list[int]]] = {}
    for group, length in grouped_views(found, 100):
        assert length <= context and (len(group.length_W) == 1 or length * len(group.length_W) <= 100)
        numbers = group.views.text_W.tolist()
        # Tokens that say what they are: the question's from 100 on, the context's their place.
        rows = [
            read_view(TOKENIZER, np.arange(100, 100 + question_N[n]), np.arange(context_N[n]), group, row)
            for row, n in enumerate(numbers)
        ]
        inputs, said_BL3 = padded(rows, length)
        for row, number in enumerate(numbers):
            size = length if inputs.lengths_B is None else int(inputs.lengths_B[row])
            tokens, said = inputs.tokens_BL[row].tolist(), said_BL3[row].tolist()
            kept = int(kept_N[number])
            assert tokens[: kept + 2] == [DOCUMENT, *range(100, 100 + kept), SEPARATOR]
            assert tokens[size - 2 : size] == [SEPARATOR, END] and not any(tokens[size:])
            places = [what[PLACE] for what in said]
            assert places[kept + 2 : size - 2] == tokens[kept + 2 : size - 2]
            assert set(places[: kept + 2] + places[size - 2 :]) == {IGNORED}
            begins = [at for at, what in enumerate(said) if what[STARTS] != IGNORED]
            ends = [at for at, what in enumerate(said) if what[ENDS] != IGNORED]
            assert begins == [*range(kept + 2, size - 2), size - 1] and ends == [*range(kept + 3, size)]
            seen.setdefault(number, []).append(tokens[kept + 2 : size - 2])
    for number, (question, text) in enumerate(sizes):
        kept, room = int(kept_N[number]), int(room_N[number])
        assert room >= 1 and kept <= question and MARKS + kept + min(room, text) <= context
        if MARKS + question + text <= context:
            assert kept == question and seen[number] == [[*range(text)]]
        views = seen[number]
        if how == "window":
            stride = max(room // 2, 1)
            heads = sorted(min(start, max(text - room, 0)) for start in range(0, max(text - room, 0) + stride, stride))
            assert sorted(view[0] for view in views) == heads
            assert set().union(*views) == set(range(text))
            assert all(view == [*range(view[0], view[0] + min(room, text))] for view in views)
        elif how == "truncate" or text <= room:
            assert views == [[*range(min(text, room))]]
        else:
            tail = room // 2
            assert views == [[*range(room - tail), *range(text - tail, text)]]


@given(
    text=st.integers(1, 60),
    question=st.integers(1, 10),
    context=st.integers(12, 50),
    how=st.sampled_from(WAYS),
    data=st.data(),
)
@settings(deadline=None)
def test_the_answer_is_said_where_it_is_read_whole_and_no_answer_elsewhere(
    text: int, question: int, context: int, how: str, data: st.DataObject
) -> None:
    first = data.draw(st.integers(-1, text - 1))
    end = data.draw(st.integers(first + 1, text)) if first >= 0 else -1
    found = question_views(one(0), one(question), one(text), context, how)
    held = found.holds(np.full(len(found.length_W), first), np.full(len(found.length_W), end))
    for row in range(len(found.length_W)):
        tokens_L, said_L3 = read_view(TOKENIZER, np.zeros(question), np.zeros(text), found, row, (first, end))
        (starts,) = np.flatnonzero(said_L3[:, STARTS] == 1)
        (ends,) = np.flatnonzero(said_L3[:, ENDS] == 1)
        place_L = said_L3[:, PLACE].tolist()
        run = list(range(first, end))
        at = place_L.index(first) if first >= 0 and first in place_L else None
        is_whole = at is not None and place_L[at : at + len(run)] == run
        assert held[row] == is_whole
        if is_whole:
            assert place_L[starts:ends] == run
        else:
            assert starts == ends == len(tokens_L) - 1


def test_a_window_with_the_answer_is_drawn_at_least_so_often() -> None:
    count, text, room = 4000, 1000, 100
    question_B, context_B = np.full(count, 7), np.full(count, text)
    first = np.random.default_rng(1).integers(text - 5, size=count)
    span_B2 = np.stack([first, first + 5], axis=1)

    def drawn(span: np.ndarray, seed: int = 0) -> np.ndarray:
        found = drawn_question_views(
            np.random.default_rng(seed), np.arange(count), question_B, context_B, span, room + 7 + MARKS, "window"
        )
        assert (found.length_W == room + 7 + MARKS).all()
        assert (found.views.head_W >= 0).all() and (found.views.head_W + room <= text).all()
        return np.stack([found.views.head_W, found.holds(span[:, 0], span[:, 1])])

    head_B, holds_B = drawn(span_B2)
    # A window at random holds it about once in ten.
    expected = HOLDING_SHARE + (1 - HOLDING_SHARE) * 96 / 901
    assert holds_B.mean() == pytest.approx(expected, abs=0.03)
    assert (drawn(span_B2)[0] == head_B).all() and (drawn(span_B2, seed=1)[0] != head_B).any()
    # Without an answer every window is as likely.
    head_B, holds_B = drawn(np.full_like(span_B2, -1))
    assert not holds_B.any() and head_B.mean() == pytest.approx(450, abs=15)
    # One that no window can hold is not looked for.
    head_B, holds_B = drawn(np.stack([first * 0, first * 0 + 200], axis=1))
    assert not holds_B.any() and head_B.mean() == pytest.approx(450, abs=15)


def test_a_context_that_fits_is_drawn_whole() -> None:
    found = drawn_question_views(
        np.random.default_rng(0), np.arange(3), np.full(3, 4), np.array([1, 9, 10]), np.full((3, 2), -1), 18, "window"
    )
    assert found.views.head_W.tolist() == [0, 0, 0] and found.length_W.tolist() == [9, 17, 18]


def test_a_context_too_short_for_anything_is_refused() -> None:
    with pytest.raises(DataError, match="need 8 tokens at least, not 7: nearest 8"):
        rooms(one(3), one(3), 7)
