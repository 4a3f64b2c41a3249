"""Expected hypervolume improvement against hypervolumes of points and against sampling."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nas.pareto import dominated_volume
from nas.search.frontier.improvement import chance_of_improvement, expected_improvement, free_boxes


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


@pytest.mark.parametrize("measured", [[], [0], [1], [0, 1], [0, 2]])
def test_the_chance_of_improvement_is_the_share_of_draws_that_nobody_dominates(measured: list[int]) -> None:
    rng = np.random.default_rng(4)
    objectives = max(2, max(measured, default=0) + 1)
    front, means = rng.random((8, objectives)), rng.random((30, objectives)) * 0.9
    deviations = np.zeros_like(means)
    deviations[:, measured] = 0.2
    found = chance_of_improvement(free_boxes(front), means, deviations)
    draws = means + deviations * rng.normal(size=(4_000, *means.shape))
    dominated = (front[:, None, None] <= draws).all(axis=-1).any(axis=0)
    free = ~dominated & (draws < 1).all(axis=-1)
    assert found == pytest.approx(free.mean(axis=0), abs=0.04 if measured else 0.0)
    assert found.max() > 0 and found.min() < 1


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
    ways = (expected_improvement, chance_of_improvement)
    whole = [way(boxes, means, deviations) for way in ways]
    monkeypatch.setattr("nas.search.frontier.improvement._CHUNK", 40)
    for way, found in zip(ways, whole, strict=True):
        assert way(boxes, means, deviations) == pytest.approx(found)
