"""The best span against every span, and the loss against its definition."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from nas.tasks.extractive.reading import ENDS, PLACE, STARTS
from nas.tasks.extractive.search import answers_at, best_spans, span_nats
from nas.tasks.metrics import IGNORED


def said(question: int, places: list[int], length: int) -> Tensor:
    """What is to be said of a question, places of a context and two marks: no answer."""
    found_L3 = torch.full((length, 3), IGNORED)
    behind = question + len(places)
    found_L3[question:behind, STARTS] = 0
    found_L3[question + 1 : behind + 1, ENDS] = 0
    found_L3[question:behind, PLACE] = torch.tensor(places, dtype=torch.int64)
    found_L3[behind + 1, [STARTS, ENDS]] = 1
    return found_L3


def by_hand(logits_L2: list[list[float]], said_L3: Tensor, most: int) -> float:
    """How far the best span of all is above the empty one."""
    place_L = said_L3[:, PLACE].tolist()
    text = [at for at, place in enumerate(place_L) if place != IGNORED]
    (last,) = (said_L3[:, STARTS] == 1).nonzero().flatten().tolist()
    best = max(
        (
            logits_L2[first][0] + logits_L2[end][1]
            for first in text
            for end in range(first + 1, min(first + most, text[-1] + 1) + 1)
            if place_L[end - 1] - place_L[first] == end - 1 - first
        ),
        default=-math.inf,
    )
    return best - logits_L2[last][0] - logits_L2[last][1]


@given(
    rows=st.lists(
        st.tuples(st.integers(1, 4), st.integers(0, 9), st.integers(0, 6), st.integers(1, 5)), min_size=1, max_size=4
    ),
    most=st.integers(1, 12),
    seed=st.integers(0, 1000),
)
@settings(deadline=None)
def test_the_best_span_is_that_of_all_spans(rows: list[tuple[int, int, int, int]], most: int, seed: int) -> None:
    """Of contexts in one piece or in two, between which something was cut out."""
    length = max(question + head + tail for question, head, tail, _ in rows) + 3
    said_BL3 = torch.stack(
        [
            said(question, [*range(3, 3 + head), *range(3 + head + gap, 3 + head + gap + tail)], length)
            for question, head, tail, gap in rows
        ]
    )
    # Whole numbers: every sum is exact.
    generator = torch.Generator().manual_seed(seed)
    logits_BL2 = torch.randperm(2 * length * len(rows), generator=generator).reshape(len(rows), length, 2).float()
    found = best_spans(logits_BL2, said_BL3, most)
    for row in range(len(rows)):
        score = by_hand(logits_BL2[row].tolist(), said_BL3[row], most)
        assert found.score_B[row].item() == score
        if score > -math.inf:
            # Of several spans that add up to the same, any is right.
            other = logits_BL2[row]
            place_L = said_BL3[row, :, PLACE].tolist()
            begins, ends = place_L.index(int(found.first_B[row])), place_L.index(int(found.end_B[row]) - 1) + 1
            (last,) = (said_BL3[row, :, STARTS] == 1).nonzero().flatten().tolist()
            assert other[begins, 0] + other[ends, 1] - other[last].sum() == score
            assert 1 <= ends - begins <= most
            assert place_L[ends - 1] - place_L[begins] == ends - 1 - begins


def test_a_constant_added_to_a_sequence_changes_no_score() -> None:
    said_BL3 = said(2, [*range(6)], 13)[None]
    logits_BL2 = torch.randn(1, 13, 2, dtype=torch.float64).round(decimals=3)
    plain, shifted = best_spans(logits_BL2, said_BL3, 3), best_spans(logits_BL2 + 4, said_BL3, 3)
    torch.testing.assert_close(plain.score_B, shifted.score_B)
    assert plain.first_B.equal(shifted.first_B) and plain.end_B.equal(shifted.end_B)
    torch.testing.assert_close(span_nats(logits_BL2, said_BL3), span_nats(logits_BL2 + 4, said_BL3))


def test_the_empty_span_is_the_answer_where_no_other_is_better_unless_there_is_always_one() -> None:
    assert answers_at(0.1, always_answered=False) and answers_at(-3.0, always_answered=True)
    assert not answers_at(0.0, always_answered=False) and not answers_at(-3.0, always_answered=False)
    # A context without a token has nothing but the empty span.
    found = best_spans(torch.zeros(1, 6, 2), said(3, [], 6)[None], 4)
    assert not answers_at(float(found.score_B), always_answered=True)


def test_the_loss_is_the_mean_of_two_cross_entropies_over_where_a_span_may_begin_and_end() -> None:
    said_BL3 = torch.stack([said(2, [*range(5)], 10), said(1, [7, 8, 9], 10)])
    said_BL3[0, 8, [STARTS, ENDS]] = 0
    said_BL3[0, 3, STARTS] = said_BL3[0, 6, ENDS] = 1
    logits_BL2 = torch.randn(2, 10, 2, dtype=torch.float64, requires_grad=True)
    nats_B = span_nats(logits_BL2, said_BL3)

    def likelihood(row: int, what: int, places: list[int], at: int) -> Tensor:
        return logits_BL2[row, places, what].log_softmax(0)[places.index(at)]

    first = likelihood(0, STARTS, [2, 3, 4, 5, 6, 8], 3) + likelihood(0, ENDS, [3, 4, 5, 6, 7, 8], 6)
    second = likelihood(1, STARTS, [1, 2, 3, 5], 5) + likelihood(1, ENDS, [2, 3, 4, 5], 5)
    torch.testing.assert_close(nats_B, -torch.stack([first, second]) / 2)
    nats_B.sum().backward()
    assert logits_BL2.grad is not None and logits_BL2.grad.isfinite().all()
    assert not logits_BL2.grad[0, [0, 1, 9]].any() and not logits_BL2.grad[1, [0, 6, 7, 8, 9]].any()


def test_low_precision_is_summed_in_float32() -> None:
    said_BL3 = said(1, [*range(400)], 403)[None]
    nats_B = span_nats(torch.zeros(1, 403, 2, dtype=torch.bfloat16), said_BL3)
    assert nats_B.item() == pytest.approx(math.log(401), rel=1e-6)
