"""Expected hypervolume improvement against hypervolumes of points and against sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.pareto import dominated_volume
from nas.search.frontier.improvement import expected_improvement, free_boxes


@pytest.mark.parametrize("objectives", [1, 2, 3, 4])
def test_of_known_values_it_is_what_the_hypervolume_grows_by(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    front, new = 0.2 + rng.random((12, objectives)), rng.random((40, objectives)) * 1.1
    front[3] = front[2]
    front[4, 0] = front[5, 0]
    before = dominated_volume(front)
    grown = [dominated_volume(np.vstack([front, point])) - before for point in new]
    found = expected_improvement(free_boxes(front), new, np.zeros_like(new))
    assert found == pytest.approx(grown, abs=1e-12)
    assert max(grown) > 0


@pytest.mark.parametrize("measured", [[0], [1], [0, 1], [0, 2]])
def test_of_uncertain_values_it_is_the_mean_over_draws(measured: list[int]) -> None:
    rng = np.random.default_rng(0)
    objectives = max(2, max(measured) + 1)
    front, means = rng.random((8, objectives)), rng.random((1, objectives)) * 0.7
    deviations = np.zeros((1, objectives))
    deviations[0, measured] = 0.2
    draws = means + deviations * rng.normal(size=(20_000, objectives))
    gains = expected_improvement(free_boxes(front), draws, np.zeros_like(draws))
    found = expected_improvement(free_boxes(front), means, deviations)[0]
    assert found == pytest.approx(gains.mean(), abs=4 * gains.std() / math.sqrt(len(gains)))
    assert gains.std() > 0


def test_boxes_do_not_overlap_and_leave_the_dominated_volume() -> None:
    front = np.random.default_rng(1).random((15, 3))
    boxes = free_boxes(front)
    sides = np.clip(boxes.high, 0, 1) - np.clip(boxes.low, 0, 1)
    assert sides.prod(axis=1).sum() == pytest.approx(1 - dominated_volume(front))


def test_without_a_front_everything_inside_the_reference_counts() -> None:
    found = expected_improvement(free_boxes(np.ones((0, 2))), np.array([[0.5, 0.5], [1.5, 0.0]]), np.zeros((2, 2)))
    assert found == pytest.approx([0.25, 0.0])


def test_a_large_set_is_scored_in_parts_as_it_is_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    boxes, means = free_boxes(rng.random((10, 2))), rng.random((50, 2))
    deviations = np.array([0.1, 0.0]) * np.ones((50, 1))
    whole = expected_improvement(boxes, means, deviations)
    monkeypatch.setattr("nas.search.frontier.improvement._CHUNK", 40)
    assert expected_improvement(boxes, means, deviations) == pytest.approx(whole)
