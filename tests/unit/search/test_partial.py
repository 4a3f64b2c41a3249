"""What unfinished trainings say of their end."""

from __future__ import annotations

import numpy as np
import pytest

from nas.search.frontier.partial import LEAST_FINISHED, expected_end, expected_ends


def test_too_few_finished_curves_say_nothing() -> None:
    some = np.linspace(1.0, 2.0, LEAST_FINISHED - 1)
    assert expected_end(1.0, some, some - 0.5) is None
    assert expected_end(1.0, np.linspace(1.0, 2.0, LEAST_FINISHED), np.linspace(0.5, 1.5, LEAST_FINISHED)) is not None


def test_a_gain_that_all_share_is_foreseen_without_doubt() -> None:
    before = np.array([1.0, 1.5, 2.0, 3.0])
    found = expected_end(1.7, before, before - 0.4)
    assert found is not None
    assert found.cost == pytest.approx(1.3) and found.variance == pytest.approx(0.0, abs=1e-12)


def test_a_gain_that_grows_with_the_distance_is_foreseen() -> None:
    rng = np.random.default_rng(0)
    before = rng.uniform(1.0, 3.0, size=40)
    found = expected_end(2.5, before, 0.5 * before + rng.normal(size=40) * 0.01)
    assert found is not None
    assert found.cost == pytest.approx(1.25, abs=0.05)
    assert found.variance < 0.1**2


def test_the_doubt_is_that_of_the_curves_and_grows_away_from_them() -> None:
    rng = np.random.default_rng(1)
    before = rng.uniform(1.0, 2.0, size=200)
    ends = before - 0.5 + rng.normal(size=200) * 0.1
    near, far = expected_end(1.5, before, ends), expected_end(9.0, before, ends)
    assert near is not None and far is not None
    assert near.variance == pytest.approx(0.01, rel=0.3)
    assert far.variance > 1.5 * near.variance


def test_each_is_held_against_its_own_rung_and_curves_without_it_are_left_out() -> None:
    finished = [[3.0, 2.0], [4.0, 3.0], [5.0, 4.0], [6.0, 5.0], []]
    ends = np.array([1.0, 2.0, 3.0, 4.0, 99.0])
    first, second = expected_ends([[4.5], [4.5, 2.5]], finished, ends)
    assert first is not None and first.cost == pytest.approx(2.5)
    assert second is not None and second.cost == pytest.approx(1.5)
