"""The words `stop` and `time_limit`."""

from __future__ import annotations

from typing import Any

import pytest

from nas.errors import StudyError
from nas.limits import Stop, parse_stop, parse_time


def test_the_words_are_read_and_said_again() -> None:
    stop = parse_stop({"tokens": "50M", "flops": 1e15, "hypervolume": {"patience": 20}, "time": "30m"})
    assert stop == Stop(tokens=5e7, flops=1e15, seconds=1800.0, patience=20, growth=0.01)
    assert parse_stop(stop.to_mapping()) == stop
    assert stop.in_words() == "50M tokens or 1P FLOPs or 30 min or 20 candidates without growth of the hypervolume"
    assert parse_stop(None) == Stop() and not Stop().is_set


def test_a_limit_that_is_given_takes_the_place_of_the_same_of_before() -> None:
    stop = Stop(tokens=10.0, seconds=5.0)
    assert stop.with_limits(tokens=20.0) == Stop(tokens=20.0, seconds=5.0)
    assert stop.with_limits(flops=3.0) == Stop(tokens=10.0, flops=3.0, seconds=5.0)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({}, "give at least one of tokens, flops, time, hypervolume"),
        ({"token": 5}, "unknown key 'token': did you mean 'tokens'"),
        ({"tokens": 0}, "tokens: a count must be above 0"),
        ({"tokens": "many"}, "'many' is no quantity"),
        ({"flops": "5X"}, "unknown unit 'X'"),
        ({"time": "0s"}, "time must be a time above 0"),
        ({"time": "5x"}, "unknown unit 'x'"),
        ({"hypervolume": {"growth": 0.1}}, "patience.*missing"),
        ({"hypervolume": {"patience": 0}}, "at least 1"),
        ({"hypervolume": {"patience": 5, "growth": -1}}, "above 0"),
    ],
)
def test_words_that_are_no_limit_are_refused(words: dict[str, Any], message: str) -> None:
    with pytest.raises(StudyError, match=message):
        parse_stop(words)


def test_a_time_has_a_unit_or_counts_seconds() -> None:
    assert parse_time("10m") == 600.0 and parse_time(90) == 90.0
    for wrong in ("0s", "-1m", "ten"):
        with pytest.raises(StudyError, match="time_limit"):
            parse_time(wrong)
