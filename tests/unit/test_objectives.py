"""Objectives: what a name says, and limits."""

from __future__ import annotations

from typing import Any

import pytest

from nas.cost.estimate import estimate
from nas.errors import InputError, StudyError
from nas.objectives import Objective, known_values, named_objective
from nas.space.architecture import Architecture
from nas.specs import task_spec

TEXT = task_spec("language_modeling").metrics_for({})
NETWORK = Architecture.from_mapping(
    {"family": "decoder", "width": 64, "max_context": 128, "layers": [{"mixer": "full"}]}
)


@pytest.mark.parametrize(
    ("name", "direction", "known", "unit"),
    [
        ("bits_per_byte", "minimize", False, "bit/byte"),
        ("token_accuracy", "maximize", False, ""),
        ("serve_bytes", "minimize", True, "B"),
        ("serve_bytes@context=64,dtype=fp32", "minimize", True, "B"),
        ("parameters", "minimize", True, ""),
        ("max_context", "maximize", True, ""),
        ("width", "minimize", True, ""),
    ],
)
def test_a_name_of_ours_says_direction_and_unit(name: str, direction: str, known: bool, unit: str) -> None:
    objective = named_objective(name, TEXT)
    assert (objective.name, objective.direction, objective.unit) == (name, direction, unit)
    assert (objective.known is not None) == known
    assert named_objective(name, TEXT, direction=direction) == objective


def test_a_metric_brings_its_best_value() -> None:
    assert named_objective("perplexity", TEXT).best == 1.0


@pytest.mark.parametrize(
    ("name", "direction", "words"),
    [
        (
            "bits_per_byte",
            "maximize",
            "objective 'bits_per_byte' is one to minimize, not to maximize: leave the direction out",
        ),
        ("max_context", "minimize", "objective 'max_context' is one to maximize, not to minimize"),
        ("serve_bytes", "minimise", "objective 'serve_bytes': unknown direction 'minimise': did you mean 'minimize'?"),
        ("bits_per_bite", None, "unknown objective 'bits_per_bite': did you mean 'bits_per_byte'?"),
        ("recall_accuracy", None, "unknown objective 'recall_accuracy'"),
        ("serve_byts", None, "did you mean 'serve_bytes'?"),
        ("os:getcwd", None, "objective 'os:getcwd' is your own: give its direction, minimize or maximize"),
        ("os:getcwd", "up", "objective 'os:getcwd': unknown direction 'up'"),
        ("serve_bytes@contxt=3", None, "unknown setting 'contxt=3': did you mean 'context'?"),
        ("nowhere:f", "minimize", "there is no module 'nowhere' to import"),
    ],
)
def test_a_name_that_says_nothing_or_the_contrary_is_refused(name: str, direction: str | None, words: str) -> None:
    with pytest.raises(InputError) as caught:
        named_objective(name, TEXT, direction=direction)
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"direction": "minimise"}, "objective 'mine': unknown direction 'minimise': did you mean 'minimize'?"),
        (
            {"direction": "minimize", "limit": float("nan")},
            "objective 'mine': the limit must be a finite number, not nan",
        ),
    ],
)
def test_an_objective_of_the_users_own_is_checked_too(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(StudyError) as caught:
        Objective("mine", **arguments)
    assert str(caught.value).startswith(words)


def test_known_values_are_exact_and_leave_measured_ones_out() -> None:
    objectives = (
        named_objective("bits_per_byte", TEXT),
        named_objective("serve_bytes@context=64", TEXT),
        Objective("area", "minimize", known=lambda architecture: architecture.width * architecture.depth),
    )
    assert known_values(objectives, NETWORK) == {
        "serve_bytes@context=64": estimate(NETWORK, context=64).serve_bytes,
        "area": 64.0,
    }


@pytest.mark.parametrize(
    ("direction", "value", "violation"),
    [("minimize", 15.0, 0.5), ("minimize", 5.0, -0.5), ("maximize", 5.0, 0.5), ("maximize", 15.0, -0.5)],
)
def test_a_violation_is_a_share_of_the_limit(direction: Any, value: float, violation: float) -> None:
    assert Objective("mine", direction, known=lambda network: network.width, limit=10.0).violation(
        value
    ) == pytest.approx(violation)
    assert Objective("mine", direction).violation(value) == 0.0


@pytest.mark.parametrize(
    ("name", "is_bytes"), [("serve_bytes@context=3", True), ("my_bytes", True), ("bits_per_byte", False)]
)
def test_bytes_are_known_by_the_name(name: str, is_bytes: bool) -> None:
    assert Objective(name, "minimize").is_bytes is is_bytes


def test_a_limit_of_a_measured_objective_is_refused() -> None:
    words = "a limit is checked before training, so it needs a known objective; '{}' is measured"
    with pytest.raises(StudyError) as caught:
        Objective("mine", "minimize", limit=1.0)
    assert str(caught.value) == words.format("mine")
    with pytest.raises(StudyError) as caught:
        named_objective("perplexity", TEXT, limit=9.0)
    assert str(caught.value) == words.format("perplexity")
