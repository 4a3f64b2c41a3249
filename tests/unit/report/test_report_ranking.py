"""Kendall's tau-b on rankings whose tau is known."""

from __future__ import annotations

import math

import pytest

from nas.report.ranking import kendall_tau


def test_the_same_order_is_one_and_the_reverse_minus_one() -> None:
    assert kendall_tau([1, 2, 3, 4], [10, 20, 30, 40]) == 1.0
    assert kendall_tau([1, 2, 3, 4], [4, 3, 2, 1]) == -1.0


def test_one_swap_of_neighbours_among_four_costs_two_pairs_of_six() -> None:
    assert kendall_tau([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(4 / 6)


def test_ties_are_set_aside_as_in_tau_b() -> None:
    # Pairs: one is tied in the first, the other two agree: 2 / sqrt(2 · 3).
    assert kendall_tau([1, 1, 2], [1, 2, 3]) == pytest.approx(2 / math.sqrt(6))
    # Kendall's tau-b of a textbook pair of rankings with ties in both.
    first, second = [12, 2, 1, 12, 2], [1, 4, 7, 1, 0]
    assert kendall_tau(first, second) == pytest.approx(-0.47140452079103173)


@pytest.mark.parametrize("scores", [([], []), ([1], [2]), ([1, 1, 1], [1, 2, 3]), ([1, 2], [5, 5])])
def test_what_orders_nothing_has_no_tau(scores: tuple[list[float], list[float]]) -> None:
    assert kendall_tau(*scores) is None


def test_scores_of_other_candidates_are_refused() -> None:
    with pytest.raises(ValueError, match="3 and 2"):
        kendall_tau([1, 2, 3], [1, 2])
