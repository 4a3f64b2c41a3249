"""What can be drawn: choices, ranges, log ranges."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.space.domains import Choice, Domain, Draw, Range


def drawn(domain: Domain, count: int = 400) -> list[object]:
    rng = random.Random(0)
    return [domain.sample(rng) for _ in range(count)]


def test_a_range_of_whole_numbers_holds_both_ends() -> None:
    domain = Range(2, 5)
    assert domain.grid == (2, 3, 4, 5)
    assert set(drawn(domain)) == {2, 3, 4, 5}


def test_a_step_that_misses_the_high_end_stops_before_it() -> None:
    assert Range(16, 60, 16).grid == (16, 32, 48)
    assert set(drawn(Range(16, 60, 16))) == {16, 32, 48}


def test_a_step_of_decimals_reaches_the_high_end_without_rounding_noise() -> None:
    assert Range(0.1, 0.5, 0.1).grid == (0.1, 0.2, 0.3, 0.4, 0.5)


def test_a_range_of_decimals_without_step_has_no_grid() -> None:
    assert Range(0.5, 2.0).grid is None
    assert all(0.5 <= float(str(value)) <= 2.0 for value in drawn(Range(0.5, 2.0)))


def test_a_range_of_one_number_is_fixed() -> None:
    assert Draw(Range(0.5, 0.5)).fixed == 0.5
    assert Draw(Range(4, 4)).fixed == 4
    assert Draw(Range(4, 5)).fixed is None


def test_a_log_range_draws_as_often_below_its_geometric_middle_as_above() -> None:
    below = sum(float(str(value)) < 1e-2 for value in drawn(Range(1e-4, 1.0, log=True), 2000))
    assert 900 < below < 1100


def test_a_log_range_of_whole_numbers_draws_whole_numbers_and_both_ends() -> None:
    values = drawn(Range(1, 8, log=True))
    assert all(isinstance(value, int) for value in values)
    assert set(values) == {1, 2, 3, 4, 5, 6, 7, 8}


def test_a_huge_range_is_drawn_from_and_searched_without_being_listed_for_each() -> None:
    domain = Range(1, 10**15, 2)
    assert domain.contains(10**15 - 1)
    assert not domain.contains(10**15)


@pytest.mark.parametrize("value", [0, 6, 2.5, True, "2", None])
def test_a_range_contains_only_its_own_numbers(value: object) -> None:
    assert not Range(1, 5).contains(value)


@given(
    st.one_of(
        st.lists(st.integers(-5, 5), min_size=1, unique=True).map(lambda values: Choice(tuple(values))),
        st.tuples(st.integers(1, 50), st.integers(0, 50), st.integers(1, 9)).map(
            lambda ends: Range(ends[0], ends[0] + ends[1], ends[2])
        ),
        st.tuples(st.floats(0.01, 10), st.floats(0.01, 10), st.booleans()).map(
            lambda ends: Range(ends[0], ends[0] + ends[1], log=ends[2])
        ),
        st.tuples(st.floats(0.01, 10), st.floats(0.01, 10), st.floats(0.1, 3)).map(
            lambda ends: Range(ends[0], ends[0] + ends[1], ends[2])
        ),
        st.tuples(st.integers(1, 50), st.integers(0, 50)).map(lambda ends: Range(ends[0], sum(ends), log=True)),
    ),
    st.integers(),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_a_domain_contains_what_it_draws_and_lists(domain: Domain, seed: int) -> None:
    assert domain.contains(domain.sample(random.Random(seed)))
    assert all(domain.contains(value) for value in domain.grid or ())


def test_a_condition_on_an_absent_name_fails() -> None:
    draw = Draw(Choice((1, 2)), when=(("mixer", ("full",)), ("heads", (2, 4))))
    assert draw.is_active({"mixer": "full", "heads": 4})
    assert not draw.is_active({"mixer": "full", "heads": 3})
    assert not draw.is_active({"mixer": "full"})
