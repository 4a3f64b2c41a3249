"""A user's own evaluator: what it returns is checked, what it raises is a failed trial."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from nas.measure.function import FunctionEvaluator
from nas.records import Candidate, Job, Schedule, TaskReference
from nas.space import Architecture

ARCHITECTURE = Architecture.from_mapping(
    {"family": "decoder", "width": 8, "max_context": 16, "layers": [{"mixer": "full", "heads": 2}]}
)
JOB = Job(
    kind="train",
    candidate=Candidate(ARCHITECTURE),
    task=TaskReference(name="function"),
    seed=0,
    schedule=Schedule(tokens_per_step=1, rung_steps=(1,)),
    from_step=0,
    to_step=1,
)


def test_what_it_returns_is_measured() -> None:
    result = FunctionEvaluator(lambda found: {"quality": found.width, "extra": 2.0}, ("quality",)).evaluate(JOB)
    assert {found.metric: found.value for found in result.measurements} == {"quality": 8.0, "extra": 2.0}


@pytest.mark.parametrize(
    ("returned", "words", "kind"),
    [
        ({"qualty": 1.0}, "did you mean 'qualty'", "crashed"),
        ({"quality": float("nan")}, "finite", "diverged"),
        ({"quality": None}, "None for 'quality': it must be a number", "crashed"),
        ({"quality": 1.0, "note": "good"}, "'good' for 'note': it must be a number", "crashed"),
        (3.0, "mapping", "crashed"),
    ],
)
def test_a_wrong_answer_fails_the_trial_with_its_reason(returned: object, words: str, kind: str) -> None:
    result = FunctionEvaluator(lambda found: returned, ("quality",)).evaluate(JOB)  # type: ignore[arg-type,return-value]
    assert result.failure is not None and words in result.failure.reason
    assert result.failure.kind == kind


def test_what_it_raises_is_a_failed_trial_with_its_traceback() -> None:
    result = FunctionEvaluator(lambda found: {"quality": 1 / 0}, ("quality",)).evaluate(JOB)
    assert result.failure is not None
    assert "division by zero" in result.failure.reason and "ZeroDivisionError" in result.failure.traceback


def test_ctrl_c_goes_through() -> None:
    def stop(found: Architecture) -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        FunctionEvaluator(stop, ("quality",)).evaluate(JOB)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resource limits of Linux")
def test_it_is_held_to_the_memory_limit() -> None:
    def greedy(found: Architecture) -> dict[str, float]:
        return {"quality": float(len(bytearray(4 * 2**30)))}

    result = FunctionEvaluator(greedy, ("quality",)).evaluate(replace(JOB, memory_limit=64 * 2**20))
    assert result.failure is not None and result.failure.kind == "out_of_memory"
