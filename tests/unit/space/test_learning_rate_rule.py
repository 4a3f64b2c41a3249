"""The word `learning_rate_rule` of a space: part of every candidate, and refused where it makes no sense."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nas.errors import SpaceError
from nas.records import Candidate
from nas.space.learning_rate_rule import BASE_WIDTH
from nas.space.space import Space


def space(training: dict[str, Any]) -> Space:
    return Space.from_mapping(
        {
            "name": "s",
            "family": "decoder",
            "width": {"choice": [8, 16]},
            "max_context": 16,
            "depth": 1,
            "layers": {"mixer": "full", "heads": 2},
            "training": training,
        }
    )


def test_a_rule_is_a_hyperparameter_of_every_candidate_and_none_that_is_drawn() -> None:
    rule = {"learning_rate": {"log_range": [1e-3, 1e-2]}, "learning_rate_rule": {"name": "width", "base_width": 64}}
    ruled = space(rule)
    drawn = ruled.decode(ruled.draw(random.Random(0)))
    assert dict(drawn.training)[BASE_WIDTH] == 64.0
    assert not any("base_width" in parameter.name for parameter in ruled.parameters)
    assert drawn.architecture is not None
    plain = tuple((name, value) for name, value in drawn.training if name != BASE_WIDTH)
    assert Candidate(drawn.architecture, plain).key != Candidate(drawn.architecture, drawn.training).key


@pytest.mark.parametrize(
    ("training", "words"),
    [
        ({"learning_rate_rule": {"name": "widht", "base_width": 64}}, "widht.*did you mean 'width'"),
        ({"learning_rate_rule": {"name": "width"}}, "base_width.*missing"),
        ({"learning_rate_rule": {"name": "width", "base_width": 0}}, "at least 1"),
        ({"learning_rate_rule": {"name": "width", "base_width": 8, "width": 3}}, "unknown key 'width'"),
        ({"learning_rate_rule": {"name": "width", "base_widht": 8}}, "did you mean 'base_width'"),
        ({"learning_rate_rule": "width"}, "name: width, base_width: 64"),
        ({"learning_rate": {"name": "width", "base_width": 64}}, "no value that can be drawn: a rule is written"),
        ({"learning_rate_base_width": 64}, "unknown key.*learning_rate_rule"),
        ({"learning_rate_rul": 64}, "did you mean 'learning_rate_rule'"),
    ],
)
def test_a_wrong_rule_is_refused_with_the_right_form(training: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        space(training)
