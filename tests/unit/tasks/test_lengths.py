from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.tasks.lengths import mixed_length, training_lengths


@pytest.mark.parametrize(
    ("max_context", "lengths"),
    [(1024, (1024, 512, 256, 128, 64)), (1000, (1000, 500, 250, 125)), (100, (100,)), (64, (64,)), (7, (7,))],
)
def test_lengths_are_halves_down_to_the_floor(max_context, lengths):
    assert training_lengths(max_context) == lengths


def test_a_task_that_needs_more_has_a_higher_floor():
    assert training_lengths(1024, shortest=200) == (1024, 512, 256)
    assert training_lengths(1024, shortest=10) == training_lengths(1024)
    assert {mixed_length(seed=0, step=step, max_context=1024, shortest=200) for step in range(3)} == {1024, 512, 256}


@given(st.integers(0, 2**40), st.integers(0, 1000), st.integers(1, 5000))
@settings(deadline=None)
def test_each_round_of_steps_holds_every_length_once(seed, round_, max_context):
    lengths = training_lengths(max_context)
    steps = range(round_ * len(lengths), (round_ + 1) * len(lengths))
    assert sorted(mixed_length(seed=seed, step=step, max_context=max_context) for step in steps) == sorted(lengths)


def test_the_order_differs_between_rounds_and_seeds():
    orders = Counter(
        tuple(mixed_length(seed=seed, step=5 * round_ + place, max_context=1024) for place in range(5))
        for seed in range(10)
        for round_ in range(10)
    )
    assert len(orders) > 50
